"""Invariants of outbox messages, notices, answers and dead jobs."""

from __future__ import annotations

from models.integrity.invariants.invariant import Invariant

OUTBOX: tuple[Invariant, ...] = (
    Invariant(
        6,
        "No member is notified twice of one event",
        """
        SELECT min(n.key) FROM unwind.notices n WHERE [n.order_id IN orders]
        GROUP BY n.key HAVING count(*) > 1
        UNION ALL
        SELECT min(n.key) FROM unwind.notices n WHERE [n.order_id IN orders]
        GROUP BY n.message_id HAVING count(DISTINCT n.key) > 1
        """,
    ),
    Invariant(
        6,
        "Every request has one answer, the same at every interface",
        """
        SELECT r.request_id FROM unwind.requests r WHERE [r.answered_at IN answers]
        GROUP BY r.request_id HAVING count(*) > 1
        UNION ALL
        SELECT r.request_id FROM unwind.requests r JOIN unwind.submissions s USING (request_id)
        WHERE [r.answered_at IN answers] AND s.answer ->> 'outcome' IN ('done', 'refused')
        AND s.answer - 'replayed' <> r.answer - 'replayed'
        """,
    ),
    Invariant(
        6,
        "Every cancellation answered as done has an event with its request id",
        """
        SELECT r.request_id FROM unwind.requests r
        WHERE [r.answered_at IN answers] AND r.task = 'orders.cancel' AND r.outcome = 'done' AND NOT EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = r.order_id AND e.type = 'orders.cancelled'
            AND e.request_id = r.request_id)
        """,
    ),
    Invariant(
        7,
        "Every completed outbox message to notify a member has its notice",
        """
        SELECT CAST(p.outbox_id AS text) FROM unwind.outbox p
        WHERE [p.outbox_id IN messages] AND p.task IN ('notices.tell_seller', 'notices.tell_buyer')
        AND p.state = 'done' AND NOT EXISTS (SELECT FROM unwind.notices n WHERE n.key = p.key)
        """,
    ),
    Invariant(
        7,
        "Every completed outbox message to reset or credit a fee has its ledger line, unless its amount is 0.00",
        """
        SELECT CAST(p.outbox_id AS text) FROM unwind.outbox p
        WHERE [p.outbox_id IN messages] AND p.task = 'credits.post_to_next_invoice' AND p.state = 'done'
        AND CAST(p.payload ->> 'amount' AS numeric) <> 0
        AND NOT EXISTS (SELECT FROM unwind.ledger_lines l WHERE l.key = p.key)
        """,
    ),
    Invariant(
        7,
        "Both parties of a cancelled order have a notice of it, or an outbox message that is not done",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o
        JOIN unwind.events c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
        CROSS JOIN LATERAL (VALUES (o.buyer_id), (o.seller_id)) party(member_id)
        CROSS JOIN LATERAL (
            SELECT 'order_cancelled:' || o.order_id || ':' || c.seq || ':' || party.member_id AS key) k
        WHERE [o.order_id IN orders] AND NOT EXISTS (SELECT FROM unwind.notices n WHERE n.key = k.key)
        AND NOT EXISTS (SELECT FROM unwind.outbox p WHERE p.key = k.key AND p.state <> 'done')
        """,
    ),
    Invariant(
        7,
        "The filer of an unlocked alert has a notice of it, or an outbox message that is not done",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o
        JOIN unwind.events e ON e.order_id = o.order_id AND e.type IN ('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')
        CROSS JOIN LATERAL (SELECT CASE e.type
            WHEN 'npb.unlocked' THEN 'npb_unlocked:' || o.order_id || ':' || e.seq || ':' || o.seller_id
            ELSE 'seller_alert_unlocked:' || o.order_id || ':' || e.seq || ':' || o.buyer_id END AS key) k
        WHERE [o.order_id IN orders] AND NOT EXISTS (SELECT FROM unwind.notices n WHERE n.key = k.key)
        AND NOT EXISTS (SELECT FROM unwind.outbox p WHERE p.key = k.key AND p.state <> 'done')
        """,
    ),
    Invariant(
        9,
        "Every dead outbox message is among the dead jobs, and every outbox message among them is dead",
        """
        SELECT CAST(p.outbox_id AS text) FROM unwind.outbox p WHERE p.state = 'dead' AND NOT EXISTS (
            SELECT FROM unwind.dead_jobs d WHERE d.outbox_id = p.outbox_id AND d.replayed_at IS NULL)
        UNION ALL
        SELECT CAST(d.outbox_id AS text) FROM unwind.dead_jobs d JOIN unwind.outbox p USING (outbox_id)
        WHERE d.replayed_at IS NULL AND p.state <> 'dead'
        """,
    ),
    Invariant(
        9,
        "Every dead submission is among the dead jobs",
        """
        SELECT s.request_id FROM unwind.submissions s WHERE s.state = 'dead' AND NOT EXISTS (
            SELECT FROM unwind.dead_jobs d WHERE d.request_id = s.request_id)
        """,
    ),
    Invariant(
        9,
        "Every dead job has its task, its first and last error and its number of attempts",
        """
        SELECT CAST(d.dead_job_id AS text) FROM unwind.dead_jobs d
        WHERE d.task = '' OR d.first_error = '' OR d.error = '' OR d.attempts < 1
        """,
    ),
)

IN_TIME: tuple[Invariant, ...] = (
    Invariant(
        7,
        "No outbox message is overdue by more than a minute",
        """
        SELECT CAST(outbox_id AS text) FROM unwind.outbox WHERE state = 'due'
        AND due_at < CAST(:now AS timestamptz) - interval '1 minute'
        """,
    ),
    Invariant(
        7,
        "No outbox message is postponed by more than 16 minutes, or after its last attempt",
        """
        SELECT CAST(outbox_id AS text) FROM unwind.outbox WHERE state = 'due'
        AND (due_at > CAST(:now AS timestamptz) + interval '16 minutes' OR attempts >= 12)
        """,
    ),
)
