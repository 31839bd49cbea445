-- Invariants of the ledger and the bills: no cent appears or disappears. Recomputed from lines, orders and dated terms,
-- independently of the code that charges, posts and bills.

-- 5. Per order the lines add up to the fee that is due: its charge, or nothing once reset or credited
SELECT o.order_id AS id
FROM unwind.orders AS o
LEFT JOIN (
    SELECT order_id, sum(amount) AS owed FROM unwind.ledger_lines
    WHERE kind IN ('charge', 'reversal', 'reset', 'credit') AND (:orders IS NULL OR order_id = ANY(:orders))
    GROUP BY order_id
) AS l USING (order_id)
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND COALESCE(l.owed, 0) <> CASE
    WHEN o.status = 'CANCELLED' AND o.basis NOT IN ('NRS', 'NSS') AND NOT EXISTS (
        SELECT FROM unwind.outbox AS p WHERE p.key = 'fee:' || o.order_id AND p.state <> 'done')
    THEN 0
    ELSE o.fee
END;

-- 5. A cancellation through NRS or NSS has neither reset nor credit, and no order has more than one
SELECT o.order_id AS id
FROM unwind.orders AS o JOIN unwind.ledger_lines AS l USING (order_id)
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND l.kind IN ('reset', 'credit')
GROUP BY o.order_id, o.status, o.basis
HAVING count(*) > 1 OR o.status <> 'CANCELLED' OR o.basis IN ('NRS', 'NSS');

-- 5. On every issued bill, lines and opening credit add up to the total and the amount carried forward
SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') AS id
FROM unwind.bills AS b
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(l.amount), 0) AS lines FROM unwind.ledger_lines AS l
    WHERE l.seller_id = b.seller_id AND l.billing_month = b.billing_month AND l.kind <> 'payment'
) AS s
WHERE (:sellers IS NULL OR b.seller_id = ANY(:sellers))
    AND (s.lines <> b.lines_sum OR b.lines_sum + b.opening_credit <> b.total + b.carried_forward);

-- 5. Every bill opens with the amount that the previous bill carried forward, less overpayments
SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') AS id
FROM unwind.bills AS b
WHERE (:sellers IS NULL OR b.seller_id = ANY(:sellers)) AND b.opening_credit <> COALESCE((
    SELECT p.carried_forward FROM unwind.bills AS p
    WHERE p.seller_id = b.seller_id AND p.billing_month < b.billing_month ORDER BY p.billing_month DESC LIMIT 1
), 0) - COALESCE((
    SELECT sum(l.excess) FROM unwind.ledger_lines AS l
    WHERE l.seller_id = b.seller_id AND l.excess_credit_month = b.billing_month
), 0);

-- 5. No month is skipped: a bill that carries an amount forward is followed by the next month's bill
SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') AS id
FROM unwind.bills AS b
WHERE (:sellers IS NULL OR b.seller_id = ANY(:sellers)) AND b.carried_forward <> 0
    AND b.billing_month < (SELECT max(m.billing_month) FROM unwind.billing_months AS m)
    AND NOT EXISTS (
        SELECT FROM unwind.bills AS n
        WHERE n.seller_id = b.seller_id AND n.billing_month = b.billing_month + interval '1 month')
    AND NOT EXISTS (
        SELECT FROM unwind.held_bills AS h
        WHERE h.seller_id = b.seller_id AND h.billing_month = b.billing_month + interval '1 month');

-- 5. Every line of a closed month is on an issued bill or on a held one
SELECT l.seller_id || ' ' || to_char(l.billing_month, 'YYYY-MM') AS id
FROM unwind.ledger_lines AS l
WHERE (:sellers IS NULL OR l.seller_id = ANY(:sellers)) AND l.kind <> 'payment'
    AND l.billing_month <= (SELECT max(m.billing_month) FROM unwind.billing_months AS m)
    AND NOT EXISTS (
        SELECT FROM unwind.bills AS b WHERE b.seller_id = l.seller_id AND b.billing_month = l.billing_month)
    AND NOT EXISTS (
        SELECT FROM unwind.held_bills AS h WHERE h.seller_id = l.seller_id AND h.billing_month = l.billing_month)
GROUP BY l.seller_id, l.billing_month;

-- 5. The lines of an issued bill have not changed since it was issued
SELECT b.seller_id || ' ' || to_char(b.billing_month, 'YYYY-MM') AS id
FROM unwind.bills AS b
WHERE (:sellers IS NULL OR b.seller_id = ANY(:sellers)) AND b.lines_hash <> (
    SELECT encode(sha256(convert_to(COALESCE(string_agg(
        concat_ws('|', l.line_id, l.kind, l.amount, l.order_id, l.charged_month, l.credited_month, l.note),
        chr(10) ORDER BY l.line_id), ''), 'UTF8')), 'hex')
    FROM unwind.ledger_lines AS l
    WHERE l.seller_id = b.seller_id AND l.billing_month = b.billing_month AND l.kind <> 'payment');

-- 5. No charge is on an earlier month's bill, and every reset is on the bill of the month of its charge
SELECT l.order_id AS id
FROM unwind.ledger_lines AS l
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND (
    l.kind IN ('charge', 'reset') AND l.billing_month < l.charged_month
    OR l.kind = 'reset' AND l.billing_month <> l.charged_month);

-- 5. A payment's excess is at most its amount and is credited in a later month than that of the bill
SELECT l.payment_id AS id
FROM unwind.ledger_lines AS l
WHERE (:sellers IS NULL OR l.seller_id = ANY(:sellers)) AND l.kind = 'payment'
    AND (l.excess > -l.amount OR l.excess_credit_month <= l.billing_month);

-- 5. A seller's billed and unbilled lines add up to the ledger, without payments
SELECT l.seller_id AS id
FROM unwind.ledger_lines AS l
WHERE (:sellers IS NULL OR l.seller_id = ANY(:sellers)) AND l.kind <> 'payment'
GROUP BY l.seller_id
HAVING sum(l.amount)
    <> COALESCE((SELECT sum(b.lines_sum) FROM unwind.bills AS b WHERE b.seller_id = l.seller_id), 0)
    + COALESCE(sum(l.amount) FILTER (WHERE NOT EXISTS (
        SELECT FROM unwind.bills AS b WHERE b.seller_id = l.seller_id AND b.billing_month = l.billing_month)), 0);

-- 5. A reset or credit is on the bill of the month of its cancellation, or on a later one if that was issued before
SELECT l.order_id AS id
FROM unwind.ledger_lines AS l
JOIN unwind.orders AS o USING (order_id)
CROSS JOIN LATERAL (
    SELECT COALESCE((
        SELECT t.settings ->> 'BILLING_TIME_ZONE' FROM unwind.terms AS t
        WHERE t.valid_from <= o.cancelled_at ORDER BY t.valid_from DESC, t.terms_id DESC LIMIT 1
    ), 'America/New_York') AS zone
) AS t
CROSS JOIN LATERAL (
    SELECT GREATEST(CAST(date_trunc('month', o.cancelled_at AT TIME ZONE t.zone) AS date), l.charged_month) AS due
) AS m
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND l.kind IN ('reset', 'credit') AND l.billing_month <> m.due
    AND NOT (l.billing_month > m.due AND (
        EXISTS (
            SELECT FROM unwind.bills AS b
            WHERE b.seller_id = l.seller_id AND b.billing_month >= m.due AND b.issued_at <= l.at)
        OR EXISTS (
            SELECT FROM unwind.billing_months AS b WHERE b.billing_month >= m.due AND b.closed_at <= l.at)));
