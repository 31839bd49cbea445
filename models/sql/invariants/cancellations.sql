-- Invariants of cancelled orders. Grounds are derived again from events and dated terms, independently of how commands
-- decide; cancelling through an alert is checked in alerts.sql.

-- 2. No order was cancelled through a penalty that the buyer had not accepted
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.basis = 'NPX' AND 'npb.penalty_accepted' IS DISTINCT FROM (
    SELECT e.type FROM unwind.events AS e
    WHERE e.order_id = o.order_id AND e.seq < c.seq
        AND e.type IN ('npb.penalty_accepted', 'npb.taken_back', 'npb.removed', 'npb.filed')
    ORDER BY e.seq DESC LIMIT 1);

-- 2. No order was cancelled through a cancel request that was not open at that instant or that the wrong party filed
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.basis IN ('OCR_SELLER', 'OCR_BUYER')
    AND o.basis IS DISTINCT FROM (
        SELECT CASE e.type WHEN 'ocr.filed' THEN 'OCR_' || upper(e.role) END FROM unwind.events AS e
        WHERE e.order_id = o.order_id AND e.seq < c.seq AND e.type IN (
            'ocr.filed', 'ocr.declined', 'ocr.withdrawn', 'npb.filed', 'nrs.filed', 'nss.filed')
        ORDER BY e.seq DESC LIMIT 1);

-- 2. No order was cancelled for a closed account that was not closed at that instant
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.basis IN ('BUYER_TERMINATED', 'SELLER_TERMINATED')
    AND 'members.terminated' IS DISTINCT FROM (
        SELECT e.type FROM unwind.events AS e
        WHERE e.member_id = CASE o.basis WHEN 'BUYER_TERMINATED' THEN o.buyer_id ELSE o.seller_id END
            AND e.event_id < c.event_id AND e.type IN ('members.terminated', 'members.reinstated')
        ORDER BY e.event_id DESC LIMIT 1);

-- 2. Every order was cancelled by the party that its ground allows
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND (c.role, c.actor, o.cancelled_by) IS DISTINCT FROM (
    CASE WHEN o.basis IN ('NRS', 'NSS', 'SELLER_TERMINATED') THEN 'buyer' ELSE 'seller' END,
    CASE
        WHEN o.basis IN ('NRS', 'NSS', 'SELLER_TERMINATED') THEN o.buyer_id
        WHEN o.basis IN ('NPB', 'NPX', 'OCR_BUYER') AND c.actor = 'automation' THEN c.actor
        ELSE o.seller_id
    END,
    c.actor);

-- 3. A cancelled order has exactly one cancellation, and only a cancelled order has one
SELECT o.order_id AS id
FROM unwind.orders AS o
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND CAST(o.status = 'CANCELLED' AS integer) <> (
    SELECT count(*) FROM unwind.events AS e WHERE e.order_id = o.order_id AND e.type = 'orders.cancelled');

-- 3. A cancelled order has no open alert and no open cancel request
SELECT o.order_id AS id
FROM unwind.orders AS o
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.status = 'CANCELLED' AND (
    EXISTS (SELECT FROM unwind.alerts AS a WHERE a.order_id = o.order_id AND a.state = 'open')
    OR EXISTS (SELECT FROM unwind.ocrs AS r WHERE r.order_id = o.order_id AND r.state = 'open'));

-- 3. A cancelled order has no pending removal request, unless the outbox message that cancels it is not done
SELECT o.order_id AS id
FROM unwind.orders AS o
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.status = 'CANCELLED'
    AND EXISTS (SELECT FROM unwind.removals AS r WHERE r.order_id = o.order_id AND r.state = 'pending')
    AND NOT EXISTS (SELECT FROM unwind.outbox AS p WHERE p.key = 'removals:' || o.order_id AND p.state <> 'done');

-- 3. After a cancellation, only events of its alert's removal, its removal requests and late payments follow
SELECT DISTINCT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
JOIN unwind.events AS e ON e.order_id = o.order_id AND e.seq > c.seq
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND e.type NOT IN (
    'npb.removed', 'nrs.removed', 'nss.removed', 'removals.cancelled', 'orders.paid_after_cancellation',
    'orders.late_payment_settled');

-- 3. A late payment belongs to a cancelled order, came after its cancellation, and equals its folded events
SELECT p.order_id AS id
FROM unwind.late_payments AS p
WHERE (:orders IS NULL OR p.order_id = ANY(:orders)) AND NOT EXISTS (
    SELECT FROM unwind.orders AS o
    JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
    WHERE o.order_id = p.order_id AND c.at <= p.recorded_at)
UNION
SELECT order_id
FROM (
    SELECT DISTINCT ON (order_id) * FROM unwind.late_payments
    WHERE :orders IS NULL OR order_id = ANY(:orders) ORDER BY order_id, late_payment_id DESC
) AS p FULL JOIN (
    SELECT e.order_id, jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS state
    FROM unwind.events AS e CROSS JOIN LATERAL jsonb_each(e.changes -> 'late_payment') AS change
    WHERE (:orders IS NULL OR e.order_id = ANY(:orders))
        AND e.type IN ('orders.paid_after_cancellation', 'orders.late_payment_settled')
    GROUP BY e.order_id
) AS folded USING (order_id)
WHERE (folded.state ->> 'payment_status', folded.state ->> 'settled_by')
        IS DISTINCT FROM (p.payment_status, p.settled_by)
    OR CAST(folded.state ->> 'recorded_at' AS timestamptz) IS DISTINCT FROM p.recorded_at
    OR CAST(folded.state ->> 'settled_at' AS timestamptz) IS DISTINCT FROM p.settled_at;

-- 6. A cancellation through an alert gives the accused party a strike, withdrawn with the alert; no other does
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
LEFT JOIN unwind.strikes AS s ON s.order_id = o.order_id
WHERE (:orders IS NULL OR o.order_id = ANY(:orders))
    AND (s.member_id, s.role, s.at, s.withdrawn_at IS NOT NULL) IS DISTINCT FROM (
        CASE WHEN o.basis IN ('NPB', 'NPX') THEN o.buyer_id WHEN o.basis IN ('NRS', 'NSS') THEN o.seller_id END,
        CASE WHEN o.basis IN ('NPB', 'NPX') THEN 'buyer' WHEN o.basis IN ('NRS', 'NSS') THEN 'seller' END,
        CASE WHEN o.basis IN ('NPB', 'NPX', 'NRS', 'NSS') THEN c.at END,
        EXISTS (
            SELECT FROM unwind.events AS r
            WHERE r.order_id = o.order_id AND r.seq > c.seq
                AND r.type IN ('npb.removed', 'nrs.removed', 'nss.removed')));

-- 6. An order has at most one strike, and only a cancelled order has one
SELECT s.order_id AS id
FROM unwind.strikes AS s
WHERE :orders IS NULL OR s.order_id = ANY(:orders)
GROUP BY s.order_id
HAVING count(*) > 1 OR NOT EXISTS (
    SELECT FROM unwind.orders AS o WHERE o.order_id = s.order_id AND o.status = 'CANCELLED');
