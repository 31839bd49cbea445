"""All invariants: a sentence each, and a query (models/sql/invariants) that returns the ids violating it.

The queries share nothing with the code that writes; an import contract enforces it.  Those of `IN_TIME` check that
everything due was done; without a running worker they find violations, so tests with a simulated clock skip them.
psql runs the files too: a parameter is a variable, and NULL instead of a scope checks everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, DateTime, Integer, Select, Text, bindparam, column, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from models.db.session_settings import set_local
from models.integrity import month_audit
from models.sql import read_sql

MONTHS_INVARIANT = "The bills of every closed month agree with orders and events; `audit month` lists the differences"
MAX_IDS = 100
INVARIANT_PLANS = {"plan_cache_mode": "force_custom_plan"}
"""Planned for their values, statements spend nothing on a scope that is not given."""

_INVARIANT_HEADING = re.compile(r"^-- (\d)\. (.+)$", re.MULTILINE)
_INVARIANT_SCOPE: dict[str, TypeEngine[Any]] = {
    "orders": ARRAY(BigInteger),
    "sellers": ARRAY(Text),
    "item_sellers": ARRAY(Text),
    "item_nos": ARRAY(Text),
    "messages": ARRAY(BigInteger),
    "answers": DateTime(timezone=True),
}
"""What to check: orders, sellers, items as two lists of equal length, outbox messages, answers since an instant."""
InvariantScope = Mapping[str, Any]
"""The values of `_INVARIANT_SCOPE`; one that is missing limits nothing."""
Violations = dict[str, list[str]]
"""The ids of the rows that violate an invariant, by its sentence."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """`group` numbers related invariants.  A query may have several parts, each of an invariant of its own."""

    group: int
    sentence: str
    query: str
    part: int

    @property
    def has_scope(self) -> bool:
        return any(f":{name}" in self.query for name in _INVARIANT_SCOPE)

    def find_violations(self, conn: Connection, now: datetime, scope: InvariantScope | None = None) -> list[str]:
        values = dict.fromkeys(_INVARIANT_SCOPE) | {**(scope or {}), "now": now, "part": self.part}
        rows = conn.execute(_violations_statement(self.query), values)
        return [str(violating_id) for violating_id in rows.scalars()]


@cache
def _violations_statement(query: str) -> Select[Any]:
    types = dict(_INVARIANT_SCOPE, now=DateTime(timezone=True), part=Integer())
    typed = [bindparam(name, type_=type_) for name, type_ in types.items() if f":{name}" in query]
    violating = text(query).bindparams(*typed).columns(column("id")).subquery()
    return select(violating).limit(MAX_IDS)


def _read_invariants(family: str) -> list[Invariant]:
    return [
        Invariant(int(group), sentence, query, part)
        for query in read_sql(f"invariants/{family}").strip().removesuffix(";").split(";\n")
        for part, (group, sentence) in enumerate(_INVARIANT_HEADING.findall(query), start=1)
    ]


_FAMILIES = ("alerts", "automation", "cancellations", "stock", "ledger", "timelines", "outbox")
ALWAYS = tuple(invariant for family in _FAMILIES for invariant in _read_invariants(family))
IN_TIME = tuple(_read_invariants("in_time"))
INVARIANTS_WITHOUT_SCOPE = [invariant.sentence for invariant in (*ALWAYS, *IN_TIME) if not invariant.has_scope]


def query_invariants(
    conn: Connection,
    now: datetime,
    *,
    in_time: bool = True,
    months: Iterable[date] = (),
    scope: InvariantScope | None = None,
) -> Violations:
    """Check all invariants; without `in_time`, only those that must hold at every instant.

    `months`: closed months (first days) whose books are recomputed, each at the cost of reading its orders' events.
    `scope`: check only these orders, sellers and so on; the cost does not depend on the size of the tables.
    """
    set_local(conn, **INVARIANT_PLANS)
    if scope is None:
        # Statistics may be missing after a restore, or older than the first cancellations. With them the planner
        # expects one row and reads all events again for each of thousands.
        set_local(conn, enable_nestloop="off")
    violations = {
        invariant.sentence: ids
        for invariant in (*ALWAYS, *(IN_TIME if in_time else ()))
        if (ids := invariant.find_violations(conn, now, scope))
    }
    if scope is None:
        set_local(conn, enable_nestloop="on")
    if differing := month_audit.months_with_differences(conn, months):
        violations[MONTHS_INVARIANT] = differing
    return violations
