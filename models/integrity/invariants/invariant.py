"""The class of an invariant: a sentence, and a query that returns the ids violating it.

A query checks everything, or only a scope.  Its scope markers, such as `[o.order_id IN orders]`, are true when
everything is checked, and otherwise conditions on the ids of a `Scope`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

MAX_IDS = 100


@dataclass(frozen=True, slots=True)
class Scope:
    """What to check: orders, sellers, items as (seller, number), outbox messages, and answers since an instant."""

    orders: tuple[int, ...] = ()
    sellers: tuple[str, ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    messages: tuple[int, ...] = ()
    answers: datetime | None = None

    def values(self) -> dict[str, Any]:
        return {
            "orders": list(self.orders),
            "sellers": list(self.sellers),
            "item_sellers": [seller for seller, _ in self.items],
            "item_nos": [number for _, number in self.items],
            "messages": list(self.messages),
            "answers": self.answers,
        }


@dataclass(frozen=True, slots=True)
class Invariant:
    """`group` numbers related invariants.  A query may use `:now`; without a scope marker it checks everything."""

    group: int
    sentence: str
    query: str

    @property
    def has_scope_marker(self) -> bool:
        return _SCOPE_MARKER.search(self.query) is not None

    def find_violations(self, conn: Connection, now: datetime, scope: Scope | None = None) -> list[str]:
        values = {"now": now} | (scope.values() if scope is not None else {})
        query = _SCOPE_MARKER.sub("true" if scope is None else _scope_condition, self.query)
        statement = text(f"SELECT * FROM ({query}) AS violation(id) LIMIT {MAX_IDS}")  # noqa: S608 - constants
        parameters = {name: value for name, value in values.items() if re.search(rf"(?<!:):{name}\b", query)}
        return [str(violating_id) for violating_id in conn.execute(statement, parameters).scalars()]


_SCOPE_MARKER = re.compile(r"\[(\w[\w., ]*) IN (orders|sellers|items|messages|answers)\]")
_CONDITIONS = {
    "orders": "{0} = ANY(CAST(:orders AS bigint[]))",
    "sellers": "{0} = ANY(CAST(:sellers AS text[]))",
    "items": "({0}) IN (SELECT * FROM unnest(CAST(:item_sellers AS text[]), CAST(:item_nos AS text[])))",
    "messages": "{0} = ANY(CAST(:messages AS bigint[]))",
    "answers": "{0} >= CAST(:answers AS timestamptz)",
}


def _scope_condition(marker: re.Match[str]) -> str:
    columns, kind = marker.groups()
    return _CONDITIONS[kind].format(columns)
