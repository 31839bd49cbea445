"""Invariants of timelines: the events of an order fold back into its rows.

The folding is PostgreSQL's own: of equal keys of an object the last one counts.
"""

from __future__ import annotations

from models.integrity.invariants.alert_lifecycle import FILINGS, MARKS
from models.integrity.invariants.invariant import Invariant


def _folded(part: str, since: str, until: str) -> str:
    # Folded from the events numbered from `since` on and before `until`.
    return f"""
        SELECT jsonb_object_agg(moved.key, moved.value ORDER BY e.seq) AS said
        FROM unwind.events e CROSS JOIN LATERAL jsonb_each(e.changes -> '{part}') moved
        WHERE e.order_id = life.order_id AND e.seq >= {since} AND e.seq < {until}
        AND jsonb_typeof(e.changes -> '{part}') = 'object'
    """  # noqa: S608 - constants of this module


def _numbered(table: str, key: str, filings: str) -> str:
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
        "The events of an order are numbered from 1 without a gap, and their number is its version",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o LEFT JOIN (
            SELECT order_id, count(*) AS n, min(seq) AS first, max(seq) AS last FROM unwind.events
            WHERE order_id IS NOT NULL AND [order_id IN orders] GROUP BY order_id) e USING (order_id)
        WHERE [o.order_id IN orders] AND (e.n, e.first, e.last)
            IS DISTINCT FROM (CAST(o.version AS bigint), 1, o.version)
        """,
    ),
    Invariant(
        8,
        "Every change of status has its event: each begins where the one before ended, and the last is the order's",
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
        "The instants of an order's events never go back, but for marks that a command overtook, and the last is the "
        "order's",
        f"""
        SELECT DISTINCT CAST(order_id AS text) FROM (
            SELECT e.order_id, e.at, o.last_event_at, max(e.at) FILTER (WHERE e.type NOT IN {MARKS}) OVER (
                PARTITION BY e.order_id ORDER BY e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
                max(e.at) FILTER (WHERE e.type NOT IN {MARKS}) OVER (PARTITION BY e.order_id) AS last
            FROM unwind.events e JOIN unwind.orders o USING (order_id) WHERE [e.order_id IN orders]
        ) e WHERE at < before OR last <> last_event_at
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        8,
        "Replaying an order's events gives its row",
        f"""
        SELECT CAST(life.order_id AS text) FROM unwind.orders life
        CROSS JOIN LATERAL ({_folded("order", "1", "2147483647")}) f
        WHERE [life.order_id IN orders] AND (life.status, life.previous_status, life.payment_status, life.order_date,
            life.total, life.fee, life.fee_month, life.cancelled_at, life.basis, life.cancelled_by) IS DISTINCT FROM (
            said ->> 'status', said ->> 'previous_status', said ->> 'payment_status',
            CAST(said ->> 'order_date' AS timestamptz), CAST(said ->> 'total' AS numeric),
            CAST(said ->> 'fee' AS numeric),
            to_date(said ->> 'fee_month', 'YYYY-MM'), CAST(said ->> 'cancelled_at' AS timestamptz), said ->> 'basis',
            said ->> 'cancelled_by')
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Replaying an alert's events gives its row",
        f"""
        SELECT CAST(life.alert_id AS text) FROM ({_numbered("alerts", "alert_id", FILINGS)}) life
        CROSS JOIN LATERAL ({_folded("alert", "life.seq", "life.until")}) f
        WHERE (life.kind, life.state, life.filed_at, life.grounds, life.responded_at, life.penalty_accepted_at,
            life.penalty_withdrawn_at, life.unlocks_at, life.unlocked_at, life.closed_at) IS DISTINCT FROM (
            said ->> 'kind', said ->> 'state', CAST(said ->> 'filed_at' AS timestamptz), said ->> 'grounds',
            CAST(said ->> 'responded_at' AS timestamptz), CAST(said ->> 'penalty_accepted_at' AS timestamptz),
            CAST(said ->> 'penalty_withdrawn_at' AS timestamptz), CAST(said ->> 'unlocks_at' AS timestamptz),
            CAST(said ->> 'unlocked_at' AS timestamptz), CAST(said ->> 'closed_at' AS timestamptz))
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Replaying a cancel request's events gives its row",
        f"""
        SELECT CAST(life.ocr_id AS text) FROM ({_numbered("ocrs", "ocr_id", "('ocr.filed')")}) life
        CROSS JOIN LATERAL ({_folded("ocr", "life.seq", "life.until")}) f
        WHERE (life.filed_by, life.reason, life.state, life.filed_at, life.closed_at) IS DISTINCT FROM (
            said ->> 'filed_by', said ->> 'reason', said ->> 'state', CAST(said ->> 'filed_at' AS timestamptz),
            CAST(said ->> 'closed_at' AS timestamptz))
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        8,
        "Every removal request that was decided was decided so by an event",
        """
        SELECT CAST(r.removal_id AS text) FROM unwind.removals r WHERE [r.order_id IN orders] AND r.state <> 'pending'
        AND NOT EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = r.order_id
            AND e.changes -> 'removals' ->> CAST(r.removal_id AS text) = r.state)
        """,
    ),
    Invariant(
        8,
        "Whoever acted on an order was a party to it in the role that its event says, or staff, or nobody's hand",
        """
        SELECT DISTINCT CAST(e.order_id AS text) FROM unwind.events e JOIN unwind.orders o USING (order_id)
        WHERE [e.order_id IN orders] AND CASE e.role
            WHEN 'buyer' THEN e.actor <> o.buyer_id WHEN 'seller' THEN e.actor <> o.seller_id
            WHEN 'staff' THEN e.actor NOT LIKE 'staff:%' ELSE e.actor NOT IN ('system', 'marketplace') END
        """,
    ),
)
