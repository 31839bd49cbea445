"""Invariants of cancelled orders.

Grounds are derived again from events and dated terms, independently of how commands decide.
"""

from __future__ import annotations

from models.integrity.invariants.alerts import FILINGS, LIFECYCLES, MATURITY, REMOVALS, first_answer
from models.integrity.invariants.invariant import Invariant

_CANCELLED = "unwind.orders o JOIN unwind.events c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'"

GROUNDS: tuple[Invariant, ...] = (
    Invariant(
        2,
        "No order was cancelled through an alert that was not open and mature at that instant",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        LEFT JOIN ({LIFECYCLES}) lifecycle
            ON lifecycle.order_id = o.order_id AND lifecycle.seq < c.seq AND lifecycle.until > c.seq
        LEFT JOIN LATERAL ({first_answer("lifecycle", "c.seq")}) answer ON true
        WHERE [o.order_id IN orders] AND o.basis IN ('NPB', 'NRS', 'NSS') AND (
            lifecycle.kind IS DISTINCT FROM o.basis OR c.at < {MATURITY} OR EXISTS (
                SELECT FROM unwind.events r WHERE r.order_id = o.order_id AND r.seq > lifecycle.seq AND r.seq < c.seq
                AND r.type IN {REMOVALS}))
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        2,
        "No order was cancelled through a penalty that the buyer had not accepted",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        WHERE [o.order_id IN orders] AND o.basis = 'NPX' AND COALESCE((
            SELECT e.type FROM unwind.events e WHERE e.order_id = o.order_id AND e.seq < c.seq
            AND e.type IN ('npb.penalty_accepted', 'npb.taken_back', 'npb.removed', 'npb.filed')
            ORDER BY e.seq DESC LIMIT 1), '') <> 'npb.penalty_accepted'
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        2,
        "No order was cancelled through a cancel request that was not open at that instant or that the wrong party "
        "filed",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        WHERE [o.order_id IN orders] AND o.basis IN ('OCR_SELLER', 'OCR_BUYER') AND COALESCE((
            SELECT CASE e.type WHEN 'ocr.filed' THEN 'OCR_' || upper(e.role) END FROM unwind.events e
            WHERE e.order_id = o.order_id AND e.seq < c.seq
            AND (e.type IN ('ocr.filed', 'ocr.declined', 'ocr.withdrawn') OR e.type IN {FILINGS})
            ORDER BY e.seq DESC LIMIT 1), '') <> o.basis
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        2,
        "No order was cancelled for a closed account that was not closed at that instant",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        WHERE [o.order_id IN orders] AND o.basis IN ('BUYER_TERMINATED', 'SELLER_TERMINATED') AND COALESCE((
            SELECT e.type FROM unwind.events e
            WHERE e.member_id = CASE o.basis WHEN 'BUYER_TERMINATED' THEN o.buyer_id ELSE o.seller_id END
            AND e.event_id < c.event_id AND e.type IN ('members.terminated', 'members.reinstated')
            ORDER BY e.event_id DESC LIMIT 1), '') <> 'members.terminated'
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        2,
        "Every order was cancelled by the party that its ground allows",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        WHERE [o.order_id IN orders] AND (c.role, c.actor, o.cancelled_by) IS DISTINCT FROM (
            CASE WHEN o.basis IN ('NRS', 'NSS', 'SELLER_TERMINATED') THEN 'buyer' ELSE 'seller' END,
            CASE WHEN o.basis IN ('NRS', 'NSS', 'SELLER_TERMINATED') THEN o.buyer_id
                WHEN o.basis IN ('NPB', 'NPX', 'OCR_BUYER') AND c.actor = 'automation' THEN c.actor
                ELSE o.seller_id END, c.actor)
        """,  # noqa: S608 - constants of this package
    ),
)

CONSEQUENCES: tuple[Invariant, ...] = (
    Invariant(
        3,
        "A cancelled order has exactly one cancellation, and only a cancelled order has one",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o
        WHERE [o.order_id IN orders] AND (o.status = 'CANCELLED')::int <> (
            SELECT count(*) FROM unwind.events e WHERE e.order_id = o.order_id AND e.type = 'orders.cancelled')
        """,
    ),
    Invariant(
        3,
        "A cancelled order has no open alert and no open cancel request",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o WHERE [o.order_id IN orders]
        AND o.status = 'CANCELLED' AND (
            EXISTS (SELECT FROM unwind.alerts a WHERE a.order_id = o.order_id AND a.state = 'open')
            OR EXISTS (SELECT FROM unwind.ocrs r WHERE r.order_id = o.order_id AND r.state = 'open'))
        """,
    ),
    Invariant(
        3,
        "A cancelled order has no pending removal request, unless the outbox message that cancels it is not done",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o
        WHERE [o.order_id IN orders] AND o.status = 'CANCELLED'
        AND EXISTS (SELECT FROM unwind.removals r WHERE r.order_id = o.order_id AND r.state = 'pending')
        AND NOT EXISTS (SELECT FROM unwind.outbox p WHERE p.key = 'removals:' || o.order_id AND p.state <> 'done')
        """,
    ),
    Invariant(
        3,
        "After a cancellation, only events of its alert's removal, its removal requests and late payments follow",
        f"""
        SELECT DISTINCT CAST(e.order_id AS text) FROM {_CANCELLED}
        JOIN unwind.events e ON e.order_id = o.order_id AND e.seq > c.seq
        WHERE [o.order_id IN orders] AND e.type NOT IN {REMOVALS} AND e.type NOT IN (
            'removals.cancelled', 'orders.paid_after_cancellation', 'orders.late_payment_settled')
        """,  # noqa: S608 - constants of this package
    ),
)

LATE_PAYMENTS: tuple[Invariant, ...] = (
    Invariant(
        3,
        "A late payment belongs to a cancelled order, came after its cancellation, and equals its folded events",
        f"""
        SELECT CAST(p.order_id AS text) FROM unwind.late_payments p
        WHERE [p.order_id IN orders] AND NOT EXISTS (
            SELECT FROM {_CANCELLED} WHERE o.order_id = p.order_id AND c.at <= p.recorded_at)
        UNION
        SELECT CAST(COALESCE(p.order_id, folded.order_id) AS text) FROM (
            SELECT DISTINCT ON (order_id) * FROM unwind.late_payments WHERE [order_id IN orders]
            ORDER BY order_id, late_payment_id DESC
        ) p FULL JOIN (
            SELECT e.order_id, jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS state
            FROM unwind.events e CROSS JOIN LATERAL jsonb_each(e.changes -> 'late_payment') change
            WHERE [e.order_id IN orders] AND e.type IN ('orders.paid_after_cancellation', 'orders.late_payment_settled')
            GROUP BY e.order_id
        ) folded USING (order_id)
        WHERE (folded.state ->> 'payment_status', folded.state ->> 'settled_by')
           IS DISTINCT FROM (p.payment_status, p.settled_by)
            OR CAST(folded.state ->> 'recorded_at' AS timestamptz) IS DISTINCT FROM p.recorded_at
            OR CAST(folded.state ->> 'settled_at' AS timestamptz) IS DISTINCT FROM p.settled_at
        """,  # noqa: S608 - constants of this package
    ),
)

STRIKES: tuple[Invariant, ...] = (
    Invariant(
        6,
        "A cancellation through an alert gives the accused party a strike, withdrawn with the alert; no other does",
        f"""
        SELECT CAST(o.order_id AS text) FROM {_CANCELLED}
        LEFT JOIN unwind.strikes s ON s.order_id = o.order_id
        WHERE [o.order_id IN orders] AND (s.member_id, s.role, s.at, s.withdrawn_at IS NOT NULL) IS DISTINCT FROM (
            CASE WHEN o.basis IN ('NPB', 'NPX') THEN o.buyer_id WHEN o.basis IN ('NRS', 'NSS') THEN o.seller_id END,
            CASE WHEN o.basis IN ('NPB', 'NPX') THEN 'buyer' WHEN o.basis IN ('NRS', 'NSS') THEN 'seller' END,
            CASE WHEN o.basis IN ('NPB', 'NPX', 'NRS', 'NSS') THEN c.at END,
            EXISTS (SELECT FROM unwind.events r
                    WHERE r.order_id = o.order_id AND r.seq > c.seq AND r.type IN {REMOVALS}))
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        6,
        "An order has at most one strike, and only a cancelled order has one",
        """
        SELECT CAST(s.order_id AS text) FROM unwind.strikes s WHERE [s.order_id IN orders]
        GROUP BY s.order_id HAVING count(*) > 1 OR NOT EXISTS (
            SELECT FROM unwind.orders o WHERE o.order_id = s.order_id AND o.status = 'CANCELLED')
        """,
    ),
)

CANCELLATIONS = (*GROUNDS, *CONSEQUENCES, *LATE_PAYMENTS, *STRIKES)
