-- Invariants of outbox messages, notices, answers and dead jobs.

-- 6. No member is notified twice of one event
SELECT min(n.key) AS id
FROM unwind.notices AS n WHERE :orders IS NULL OR n.order_id = ANY(:orders)
GROUP BY n.key HAVING count(*) > 1
UNION ALL
SELECT min(n.key)
FROM unwind.notices AS n WHERE :orders IS NULL OR n.order_id = ANY(:orders)
GROUP BY n.message_id HAVING count(DISTINCT n.key) > 1;

-- 6. Every request has one answer, the same at every interface
SELECT r.request_id AS id
FROM unwind.requests AS r WHERE :answers IS NULL OR r.answered_at >= :answers
GROUP BY r.request_id HAVING count(*) > 1
UNION ALL
SELECT r.request_id
FROM unwind.requests AS r JOIN unwind.submissions AS s USING (request_id)
WHERE (:answers IS NULL OR r.answered_at >= :answers) AND s.answer ->> 'outcome' IN ('done', 'refused')
    AND s.answer - 'replayed' <> r.answer - 'replayed';

-- 6. Every cancellation answered as done has an event with its request id
SELECT r.request_id AS id
FROM unwind.requests AS r
WHERE (:answers IS NULL OR r.answered_at >= :answers) AND r.task = 'orders.cancel' AND r.outcome = 'done'
    AND NOT EXISTS (
        SELECT FROM unwind.events AS e
        WHERE e.order_id = r.order_id AND e.type = 'orders.cancelled' AND e.request_id = r.request_id);

-- 7. Every completed outbox message to notify a member has its notice
SELECT p.outbox_id AS id
FROM unwind.outbox AS p
WHERE (:messages IS NULL OR p.outbox_id = ANY(:messages)) AND p.state = 'done'
    AND p.task IN ('notices.tell_seller', 'notices.tell_buyer')
    AND NOT EXISTS (SELECT FROM unwind.notices AS n WHERE n.key = p.key);

-- 7. Every completed outbox message to reset or credit a fee has its ledger line, unless its amount is 0.00
SELECT p.outbox_id AS id
FROM unwind.outbox AS p
WHERE (:messages IS NULL OR p.outbox_id = ANY(:messages)) AND p.state = 'done'
    AND p.task = 'credits.post_to_next_invoice' AND CAST(p.payload ->> 'amount' AS numeric) <> 0
    AND NOT EXISTS (SELECT FROM unwind.ledger_lines AS l WHERE l.key = p.key);

-- 7. Both parties of a cancelled order have a notice of it, or an outbox message that is not done
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
CROSS JOIN LATERAL (VALUES (o.buyer_id), (o.seller_id)) AS party (member_id)
CROSS JOIN LATERAL (
    SELECT 'order_cancelled:' || o.order_id || ':' || c.seq || ':' || party.member_id AS key
) AS k
WHERE (:orders IS NULL OR o.order_id = ANY(:orders))
    AND NOT EXISTS (SELECT FROM unwind.notices AS n WHERE n.key = k.key)
    AND NOT EXISTS (SELECT FROM unwind.outbox AS p WHERE p.key = k.key AND p.state <> 'done');

-- 7. The filer of an unlocked alert has a notice of it, or an outbox message that is not done
SELECT o.order_id AS id
FROM unwind.orders AS o
JOIN unwind.events AS e ON e.order_id = o.order_id AND e.type IN ('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')
CROSS JOIN LATERAL (
    SELECT CASE e.type
        WHEN 'npb.unlocked' THEN 'npb_unlocked:' || o.order_id || ':' || e.seq || ':' || o.seller_id
        ELSE 'seller_alert_unlocked:' || o.order_id || ':' || e.seq || ':' || o.buyer_id
    END AS key
) AS k
WHERE (:orders IS NULL OR o.order_id = ANY(:orders))
    AND NOT EXISTS (SELECT FROM unwind.notices AS n WHERE n.key = k.key)
    AND NOT EXISTS (SELECT FROM unwind.outbox AS p WHERE p.key = k.key AND p.state <> 'done');

-- 9. Every dead outbox message is among the dead jobs, and every outbox message among them is dead
SELECT p.outbox_id AS id
FROM unwind.outbox AS p
WHERE p.state = 'dead' AND NOT EXISTS (
    SELECT FROM unwind.dead_jobs AS d WHERE d.outbox_id = p.outbox_id AND d.replayed_at IS NULL)
UNION ALL
SELECT d.outbox_id
FROM unwind.dead_jobs AS d JOIN unwind.outbox AS p USING (outbox_id)
WHERE d.replayed_at IS NULL AND p.state <> 'dead';

-- 9. Every dead submission is among the dead jobs
SELECT s.request_id AS id
FROM unwind.submissions AS s
WHERE s.state = 'dead' AND NOT EXISTS (SELECT FROM unwind.dead_jobs AS d WHERE d.request_id = s.request_id);

-- 9. Every dead job has its task, its first and last error and its number of attempts
SELECT d.dead_job_id AS id
FROM unwind.dead_jobs AS d
WHERE d.task = '' OR d.first_error = '' OR d.error = '' OR d.attempts < 1;
