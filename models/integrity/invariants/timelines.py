"""Invariants of timelines: the events of an order fold back into its rows.

PostgreSQL folds them: of equal keys of an object the last one counts.
"""

from __future__ import annotations

from models.integrity.invariants.alerts import FILINGS, UNLOCKS
from models.integrity.invariants.invariant import Invariant


def _fold_changes(part: str, since: str, until: str) -> str:
    # Folded from the events numbered from `since` on and before `until`.
    return f"""
        SELECT jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS folded
        FROM unwind.events e CROSS JOIN LATERAL jsonb_each(e.changes -> '{part}') change
        WHERE e.order_id = stored.order_id AND e.seq >= {since} AND e.seq < {until}
        AND jsonb_typeof(e.changes -> '{part}') = 'object'
    """  # noqa: S608 - constants of this module


def _with_event_range(table: str, key: str, filings: str) -> str:
    # Each alert or cancel request with the numbers of its filing and of the next one.
    return f"""
        SELECT r.*, f.seq, f.until FROM (
            SELECT x.*, row_number() OVER (PARTITION BY x.order_id ORDER BY x.{key}) AS nth
            FROM unwind.{table} x WHERE [x.order_id IN orders]
        ) r LEFT JOIN (
            SELECT e.order_id, e.seq, row_number() OVER w AS nth, lead(e.seq, 1, 2147483647) OVER w AS until
            FROM unwind.events e WHERE e.type IN {filings} AND [e.order_id IN orders]
            WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)
        ) f ON f.order_id = r.order_id AND f.nth = r.nth
    """  # noqa: S608 - constants of this module


TIMELINES: tuple[Invariant, ...] = (
    Invariant(
        8,
        "An order's events are numbered from 1 without a gap, and the last number is its version or its unlock",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o LEFT JOIN (
            SELECT order_id, count(*) AS n, min(seq) AS first, max(seq) AS last FROM unwind.events
            WHERE order_id IS NOT NULL AND [order_id IN orders] GROUP BY order_id) e USING (order_id)
        WHERE [o.order_id IN orders] AND (e.n, e.first, e.last)
            IS DISTINCT FROM (CAST(e.last AS bigint), 1, GREATEST(o.version, (
                SELECT max(a.unlock_seq) FROM unwind.alerts a WHERE a.order_id = o.order_id)))
        """,
    ),
    Invariant(
        8,
        "Every event starts from the status that the previous one led to, and the last one leads to the order's status",
        """
        SELECT DISTINCT CAST(order_id AS text) FROM (
            SELECT e.order_id, e.to_status, e.from_status, o.status,
                lag(e.to_status) OVER w AS before, lead(e.seq) OVER w AS after
            FROM unwind.events e JOIN unwind.orders o USING (order_id) WHERE [e.order_id IN orders]
            WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)
        ) c WHERE from_status IS DISTINCT FROM before OR (after IS NULL AND to_status <> status)
        """,
    ),
    Invariant(
        8,
        "The events of an order are in order of time, except overtaken unlocks, and the last one is its last_event_at",
        f"""
        SELECT DISTINCT CAST(order_id AS text) FROM (
            SELECT e.order_id, e.at, o.last_event_at, max(e.at) FILTER (WHERE e.type NOT IN {UNLOCKS}) OVER (
                PARTITION BY e.order_id ORDER BY e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
                max(e.at) FILTER (WHERE e.type NOT IN {UNLOCKS}) OVER (PARTITION BY e.order_id) AS last
            FROM unwind.events e JOIN unwind.orders o USING (order_id) WHERE [e.order_id IN orders]
        ) e WHERE at < before OR last <> last_event_at
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        8,
        "Replaying an order's events gives its row",
        f"""
        SELECT CAST(stored.order_id AS text) FROM unwind.orders stored
        CROSS JOIN LATERAL ({_fold_changes("order", "1", "2147483647")}) f
        WHERE [stored.order_id IN orders] AND (stored.status, stored.previous_status, stored.payment_status,
            stored.order_date, stored.total, stored.fee, stored.fee_month, stored.cancelled_at, stored.basis,
            stored.cancelled_by, stored.npb_filed_at, stored.held_at, stored.held_until) IS DISTINCT FROM (
            folded ->> 'status', folded ->> 'previous_status', folded ->> 'payment_status',
            CAST(folded ->> 'order_date' AS timestamptz), CAST(folded ->> 'total' AS numeric),
            CAST(folded ->> 'fee' AS numeric),
            to_date(folded ->> 'fee_month', 'YYYY-MM'), CAST(folded ->> 'cancelled_at' AS timestamptz),
            folded ->> 'basis', folded ->> 'cancelled_by', CAST(folded ->> 'npb_filed_at' AS timestamptz),
            CAST(folded ->> 'held_at' AS timestamptz),
            CAST(folded ->> 'held_until' AS timestamptz))
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Replaying an alert's events gives its row",
        f"""
        SELECT CAST(stored.alert_id AS text) FROM ({_with_event_range("alerts", "alert_id", FILINGS)}) stored
        CROSS JOIN LATERAL ({_fold_changes("alert", "stored.seq", "stored.until")}) f
        WHERE (stored.kind, stored.state, stored.filed_at, stored.grounds, stored.responded_at,
            stored.penalty_accepted_at, stored.penalty_withdrawn_at, stored.extended_until, stored.unlocks_at,
            stored.unlocked_at, stored.closed_at) IS DISTINCT FROM (
            folded ->> 'kind', folded ->> 'state', CAST(folded ->> 'filed_at' AS timestamptz), folded ->> 'grounds',
            CAST(folded ->> 'responded_at' AS timestamptz), CAST(folded ->> 'penalty_accepted_at' AS timestamptz),
            CAST(folded ->> 'penalty_withdrawn_at' AS timestamptz), CAST(folded ->> 'extended_until' AS timestamptz),
            CAST(folded ->> 'unlocks_at' AS timestamptz),
            CAST(folded ->> 'unlocked_at' AS timestamptz), CAST(folded ->> 'closed_at' AS timestamptz))
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Replaying a cancel request's events gives its row",
        f"""
        SELECT CAST(stored.ocr_id AS text) FROM ({_with_event_range("ocrs", "ocr_id", "('ocr.filed')")}) stored
        CROSS JOIN LATERAL ({_fold_changes("ocr", "stored.seq", "stored.until")}) f
        WHERE (stored.filed_by, stored.reason, stored.state, stored.filed_at, stored.closed_at) IS DISTINCT FROM (
            folded ->> 'filed_by', folded ->> 'reason', folded ->> 'state', CAST(folded ->> 'filed_at' AS timestamptz),
            CAST(folded ->> 'closed_at' AS timestamptz))
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Every decided removal request has an event with that decision",
        """
        SELECT CAST(r.removal_id AS text) FROM unwind.removals r WHERE [r.order_id IN orders] AND r.state <> 'pending'
        AND NOT EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = r.order_id
            AND e.changes -> 'removals' ->> CAST(r.removal_id AS text) = r.state)
        """,
    ),
    Invariant(
        8,
        "Every event of an order names a party in that party's role, automation for the seller, staff, or the system",
        """
        SELECT DISTINCT CAST(e.order_id AS text) FROM unwind.events e JOIN unwind.orders o USING (order_id)
        WHERE [e.order_id IN orders] AND CASE e.role
            WHEN 'buyer' THEN e.actor <> o.buyer_id WHEN 'seller' THEN e.actor NOT IN (o.seller_id, 'automation')
            WHEN 'staff' THEN e.actor NOT LIKE 'staff:%' ELSE e.actor NOT IN ('system', 'marketplace') END
        """,
    ),
)
