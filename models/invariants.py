"""What must never be?  A sentence and a query for each promise: whatever the query finds, the promise is broken for.

The queries share nothing with the code that writes: they read rows and events as they are (promises.md, Invariants).  A
query gives ids as text and may use `:now`.  Those of `IN_TIME` ask whether everything that is due was done; they may find
something where no worker runs, so tests with a clock of their own leave them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from models import month_audit
from models.money_invariants import QUERIES as MONEY

MOST_IDS = 100
"""Of one sentence: enough to see a pattern."""

ALERTS = (
    (
        "No alert is marked as unlocked before its instant",
        (
            "SELECT CAST(alert_id AS text) FROM unwind.alerts WHERE unlocked_at < unlocks_at AND responded_at IS NULL "
            "AND penalty_accepted_at IS NULL"
        ),
    ),
    (
        "No alert is marked as unlocked before its instant, moved by answers as it was",
        (
            "SELECT CAST(alert_id AS text) FROM unwind.alerts WHERE unlocked_at < unlocks_at "
            "AND unlocked_at > GREATEST(responded_at, penalty_accepted_at, penalty_withdrawn_at)"
        ),
    ),
    (
        "An alert has one event for being unlocked each time it was",
        (
            "SELECT CAST(a.alert_id AS text) FROM unwind.alerts a WHERE a.unlocked_at IS NOT NULL AND 1 <> ("
            "  SELECT count(*) FROM unwind.events e WHERE e.order_id = a.order_id AND e.at = a.unlocked_at"
            "  AND e.type = lower(a.kind) || '.unlocked')"
        ),
    ),
)

CANCELLATIONS = (
    (
        "A cancelled order has exactly one cancellation, and only a cancelled order has one",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE (o.status = 'CANCELLED')::int <> ("
            "  SELECT count(*) FROM unwind.events e WHERE e.order_id = o.order_id AND e.type = 'orders.cancelled')"
        ),
    ),
    (
        "A cancelled order has no open alert and no open cancel request",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE o.status = 'CANCELLED' AND ("
            "  EXISTS (SELECT FROM unwind.alerts a WHERE a.order_id = o.order_id AND a.state = 'open')"
            "  OR EXISTS (SELECT FROM unwind.ocrs r WHERE r.order_id = o.order_id AND r.state = 'open'))"
        ),
    ),
    (
        "A cancelled order has no pending removal request once that promise is kept",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o JOIN unwind.outbox p ON p.order_id = o.order_id "
            "AND p.task = 'removals.cancel_pending' AND p.state = 'done' WHERE o.status = 'CANCELLED' AND EXISTS ("
            "  SELECT FROM unwind.removals r WHERE r.order_id = o.order_id AND r.state = 'pending')"
        ),
    ),
    (
        "No order is cancelled through an alert that was not open and mature at that instant",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE o.basis IN ('NPB', 'NRS', 'NSS') AND NOT EXISTS ("
            "  SELECT FROM unwind.alerts a WHERE a.order_id = o.order_id AND a.kind = o.basis"
            "  AND a.state IN ('completed', 'removed') AND a.filed_at < o.cancelled_at AND a.unlocks_at <= o.cancelled_at"
            "  AND EXISTS (SELECT FROM unwind.events e WHERE e.order_id = o.order_id AND e.at = a.filed_at"
            "              AND e.type = lower(a.kind) || '.filed'))"
        ),
    ),
    (
        "No order is cancelled through a penalty that the buyer had not accepted",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE o.basis = 'NPX' AND COALESCE(("
            "  SELECT e.type FROM unwind.events e WHERE e.order_id = o.order_id AND e.at <= o.cancelled_at"
            "  AND e.type IN ('npb.penalty_accepted', 'npb.taken_back', 'npb.removed', 'npb.filed')"
            "  ORDER BY e.seq DESC LIMIT 1), '') <> 'npb.penalty_accepted'"
        ),
    ),
    (
        "No order is cancelled through a cancel request that was not open at that instant",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE o.basis IN ('OCR_SELLER', 'OCR_BUYER') AND NOT EXISTS ("
            "  SELECT FROM unwind.ocrs r WHERE r.order_id = o.order_id AND r.state = 'agreed' AND r.closed_at = o.cancelled_at"
            "  AND 'OCR_' || upper(r.filed_by) = o.basis)"
        ),
    ),
    (
        "A cancelled order's items came back whole where they may, and not at all where they may not",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o JOIN unwind.order_lines l USING (order_id) "
            "WHERE (o.basis IN ('NRS', 'NSS') AND l.returned > 0) OR (o.status <> 'CANCELLED' AND l.returned > 0)"
        ),
    ),
    (
        "A strike is of an order that was cancelled through an alert",
        (
            "SELECT CAST(s.order_id AS text) FROM unwind.strikes s JOIN unwind.orders o USING (order_id) "
            "WHERE o.basis IS NULL OR o.basis NOT IN ('NPB', 'NPX', 'NRS', 'NSS')"
        ),
    ),
)

UNITS = (
    (
        "Per seller and item key the journal adds up to what is on hand",
        (
            "SELECT seller_id || ' ' || item_no FROM ("
            "  SELECT seller_id, item_type, item_no, color_id, new_or_used, completeness, quantity AS units FROM unwind.lots"
            "  UNION ALL"
            "  SELECT seller_id, item_type, item_no, color_id, new_or_used, completeness, -delta FROM unwind.stock_moves"
            ") b GROUP BY seller_id, item_type, item_no, color_id, new_or_used, completeness HAVING sum(units) <> 0"
        ),
    ),
    (
        "What a line returned or lost stands in the journal once, and no line gives more than it had",
        (
            "SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l WHERE l.returned + l.removed > l.quantity "
            "OR l.returned <> (SELECT COALESCE(sum(m.delta), 0) FROM unwind.stock_moves m"
            "  WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.kind = 'returned' AND m.removal_id IS NULL)"
        ),
    ),
)

TIMELINES = (
    (
        "The events of an order are numbered from 1 without a gap, and their number is its version",
        (
            "SELECT CAST(o.order_id AS text) FROM unwind.orders o LEFT JOIN ("
            "  SELECT order_id, count(*) AS n, min(seq) AS first, max(seq) AS last FROM unwind.events"
            "  WHERE order_id IS NOT NULL GROUP BY order_id) e USING (order_id)"
            "WHERE (e.n, e.first, e.last) IS DISTINCT FROM (CAST(o.version AS bigint), 1, o.version)"
        ),
    ),
    (
        "Every change of status has its event: each begins where the one before ended, and the last is the order's",
        (
            "SELECT DISTINCT CAST(order_id AS text) FROM ("
            "  SELECT e.order_id, e.to_status, e.from_status, o.status,"
            "    lag(e.to_status) OVER w AS before, lead(e.seq) OVER w AS after"
            "  FROM unwind.events e JOIN unwind.orders o USING (order_id) WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)"
            ") c WHERE from_status IS DISTINCT FROM before OR (after IS NULL AND to_status <> status)"
        ),
    ),
    (
        "The instants of an order's events never go back",
        (
            "SELECT DISTINCT CAST(order_id AS text) FROM ("
            "  SELECT order_id, at, lag(at) OVER (PARTITION BY order_id ORDER BY seq) AS before FROM unwind.events"
            "  WHERE order_id IS NOT NULL) e WHERE at < before"
        ),
    ),
)

PROMISES_KEPT = (
    (
        "A promise to tell somebody that is kept has its notice",
        (
            "SELECT CAST(p.outbox_id AS text) FROM unwind.outbox p WHERE p.task IN ('notices.tell_seller', 'notices.tell_buyer') "
            "AND p.state = 'done' AND NOT EXISTS (SELECT FROM unwind.notices n WHERE n.key = p.key)"
        ),
    ),
    (
        "Nobody is told twice of one event",
        "SELECT min(key) FROM unwind.notices GROUP BY key HAVING count(*) > 1",
    ),
    (
        "A promise that was given up is seen among the dead jobs",
        (
            "SELECT CAST(p.outbox_id AS text) FROM unwind.outbox p WHERE p.state = 'dead' AND NOT EXISTS ("
            "  SELECT FROM unwind.dead_jobs d WHERE d.outbox_id = p.outbox_id)"
        ),
    ),
)

ALWAYS: tuple[tuple[str, str], ...] = (*ALERTS, *CANCELLATIONS, *UNITS, *MONEY, *TIMELINES, *PROMISES_KEPT)

IN_TIME: tuple[tuple[str, str], ...] = (
    (
        "No alert stays locked for more than a minute after its instant",
        (
            "SELECT CAST(alert_id AS text) FROM unwind.alerts WHERE state = 'open' AND unlocked_at IS NULL "
            "AND NOT penalty_stands AND unlocks_at < CAST(:now AS timestamptz) - interval '1 minute'"
        ),
    ),
    (
        "No promise waits longer than a minute to be rung for",
        (
            "SELECT CAST(outbox_id AS text) FROM unwind.outbox WHERE state = 'due' "
            "AND due_at < CAST(:now AS timestamptz) - interval '1 minute'"
        ),
    ),
)


MONTHS_PROVEN = "Of every closed month the bills say what orders and events say; audit month names what differs"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise and for which orders, alerts, bills or rows (as text, at most a hundred)."""

    sentence: str
    ids: list[str]


def check(conn: Connection, now: datetime, *, in_time: bool = True, months: Iterable[date] = ()) -> list[Violation]:
    """Ask all; empty is how it must be.  Without `in_time` only what must hold at every instant is asked.

    `months`: the closed months (first days) whose books are computed again, each at the cost of reading its orders' events.
    """
    found = []
    for sentence, query in (*ALWAYS, *(IN_TIME if in_time else ())):
        asked = text(f"SELECT * FROM ({query}) AS broken(id) LIMIT {MOST_IDS}")  # noqa: S608 - our own texts
        ids = conn.execute(asked, {"now": now} if ":now" in query else {}).scalars()
        if broken := [str(one) for one in ids]:
            found.append(Violation(sentence, broken))
    if unproven := month_audit.unproven(conn, months):
        found.append(Violation(MONTHS_PROVEN, unproven))
    return found
