"""All invariants: a sentence each, and a query that returns the ids violating it.

The queries share nothing with the code that writes; an import contract enforces it.  Those of `IN_TIME` check that
everything due was done; without a running worker they find violations, so tests with a simulated clock skip them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from models.integrity import month_audit
from models.integrity.invariants import alerts, automation, outbox
from models.integrity.invariants.cancellations import CANCELLATIONS
from models.integrity.invariants.invariant import Invariant, Scope
from models.integrity.invariants.ledger import LEDGER
from models.integrity.invariants.stock import STOCK
from models.integrity.invariants.timelines import TIMELINES

ALWAYS: tuple[Invariant, ...] = (
    *alerts.ALERTS,
    *automation.AUTOMATION,
    *CANCELLATIONS,
    *STOCK,
    *LEDGER,
    *TIMELINES,
    *outbox.OUTBOX,
)
IN_TIME: tuple[Invariant, ...] = (*alerts.IN_TIME, *automation.IN_TIME, *outbox.IN_TIME)

MONTHS_PROVEN = "The bills of every closed month agree with orders and events; `audit month` lists the differences"


@dataclass(frozen=True, slots=True)
class Violation:
    sentence: str
    ids: list[str]


def check_invariants(
    conn: Connection,
    now: datetime,
    *,
    in_time: bool = True,
    months: Iterable[date] = (),
    scope: Scope | None = None,
) -> list[Violation]:
    """Check all invariants; without `in_time`, only those that must hold at every instant.

    `months`: closed months (first days) whose books are recomputed, each at the cost of reading its orders' events.
    `scope`: check only these orders, sellers and so on; the cost does not depend on the size of the tables.
    """
    if scope is None:
        # Statistics may be missing after a restore, or older than the first cancellations. With them the planner
        # expects one row and reads all events again for each of thousands.
        conn.execute(text("SET LOCAL enable_nestloop = off"))
    violations = [
        Violation(invariant.sentence, ids)
        for invariant in (*ALWAYS, *(IN_TIME if in_time else ()))
        if (ids := invariant.find_violations(conn, now, scope))
    ]
    if scope is None:
        conn.execute(text("SET LOCAL enable_nestloop = on"))
    if differing := month_audit.months_with_differences(conn, months):
        violations.append(Violation(MONTHS_PROVEN, differing))
    return violations
