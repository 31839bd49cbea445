"""What must never be in the books?  Each promise about cents with a query that must come back empty (promises.md 5).

A query gives the ids, as text, of the orders or bills for which its sentence is not true; it may use `:now`.
"""

from __future__ import annotations

from models.bills import LINES_HASH

QUERIES: tuple[tuple[str, str], ...] = (
    (
        "Per order the lines add up to the fee that is due: its charge, or nothing once reset or credited",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o
        LEFT JOIN (
            SELECT order_id, sum(amount) AS owed FROM unwind.ledger_lines
            WHERE kind IN ('charge', 'reversal', 'reset', 'credit') GROUP BY order_id
        ) l USING (order_id)
        WHERE COALESCE(l.owed, 0) <> CASE
            WHEN o.status = 'CANCELLED' AND o.basis NOT IN ('NRS', 'NSS') AND NOT EXISTS (
                SELECT FROM unwind.outbox p WHERE p.key = 'fee:' || o.order_id AND p.state <> 'done') THEN 0
            ELSE o.fee END
        """,
    ),
    (
        "A cancellation through NRS or NSS has neither reset nor credit, and no order has more than one",
        """
        SELECT CAST(o.order_id AS text) FROM unwind.orders o JOIN unwind.ledger_lines l USING (order_id)
        WHERE l.kind IN ('reset', 'credit') GROUP BY o.order_id, o.status, o.basis
        HAVING count(*) > 1 OR o.status <> 'CANCELLED' OR o.basis IN ('NRS', 'NSS')
        """,
    ),
    (
        "Of every issued bill the lines and the opening credit are its total and what it carries forward",
        """
        SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') FROM unwind.bills b
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(l.amount), 0) AS lines FROM unwind.ledger_lines l
            WHERE l.seller_id = b.seller_id AND l.billing_month = b.billing_month AND l.kind <> 'payment'
        ) s
        WHERE s.lines <> b.lines_sum OR b.lines_sum + b.opening_credit <> b.total + b.carried_forward
        """,
    ),
    (
        "Every bill opens with what the bill before carried forward, less what was paid too much",
        """
        SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') FROM unwind.bills b
        WHERE b.opening_credit <> COALESCE((
            SELECT p.carried_forward FROM unwind.bills p
            WHERE p.seller_id = b.seller_id AND p.billing_month < b.billing_month ORDER BY p.billing_month DESC LIMIT 1), 0)
        - COALESCE((
            SELECT sum(l.excess) FROM unwind.ledger_lines l
            WHERE l.seller_id = b.seller_id AND l.opens_month = b.billing_month), 0)
        """,
    ),
    (
        "No bill is left out: what one carries forward is taken up by the next as soon as there is one",
        """
        SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') FROM unwind.bills b
        WHERE b.carried_forward <> 0
        AND b.billing_month < (SELECT max(m.billing_month) FROM unwind.billing_months m)
        AND NOT EXISTS (SELECT FROM unwind.bills n WHERE n.seller_id = b.seller_id
                        AND n.billing_month = b.billing_month + interval '1 month')
        """,
    ),
    (
        "Every line of a closed month is on an issued bill",
        """
        SELECT l.seller_id || ' ' || to_char(l.billing_month, 'YYYY-MM') FROM unwind.ledger_lines l
        WHERE l.kind <> 'payment' AND l.billing_month <= (SELECT max(m.billing_month) FROM unwind.billing_months m)
        AND NOT EXISTS (SELECT FROM unwind.bills b WHERE b.seller_id = l.seller_id AND b.billing_month = l.billing_month)
        GROUP BY l.seller_id, l.billing_month
        """,
    ),
    (
        "The lines of an issued bill are those it was issued with",
        f"""
        SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') FROM unwind.bills b
        CROSS JOIN LATERAL (
            SELECT {LINES_HASH} AS hash FROM unwind.ledger_lines l
            WHERE l.seller_id = b.seller_id AND l.billing_month = b.billing_month AND l.kind <> 'payment'
        ) s
        WHERE s.hash <> b.lines_hash
        """,  # noqa: S608 - the hash is an expression of ours
    ),
    (
        "No charge is on a bill of another month than the one in which it was charged",
        """
        SELECT CAST(l.order_id AS text) FROM unwind.ledger_lines l
        WHERE l.kind IN ('charge', 'reset') AND l.billing_month < l.charged_month
           OR l.kind = 'reset' AND l.billing_month <> l.charged_month
        """,
    ),
    (
        "A payment is only of an issued bill, and what it pays too much is no more than itself",
        """
        SELECT l.payment_id FROM unwind.ledger_lines l
        WHERE l.kind = 'payment' AND (
            COALESCE(l.excess, 0) > -l.amount
            OR (l.opens_month IS NOT NULL AND l.opens_month <= l.billing_month))
        """,
    ),
)
