-- Invariants of a running system: everything due was done. Without a running worker these queries find violations.

-- 1. No alert stays locked for more than a minute after its deadline
SELECT alert_id AS id
FROM unwind.alerts
WHERE state = 'open' AND unlocked_at IS NULL AND NOT penalty_stands AND unlocks_at < :now - interval '1 minute';

-- 1. No automatic act is overdue by more than a minute
SELECT order_id AS id FROM unwind.alerts WHERE state = 'open' AND cancels_at < :now - interval '1 minute'
UNION ALL
SELECT order_id FROM unwind.orders WHERE files_npb_at < :now - interval '1 minute'
UNION ALL
SELECT order_id FROM unwind.ocrs
WHERE state = 'open' AND LEAST(agrees_at, declines_at) < :now - interval '1 minute';

-- 7. No outbox message is overdue by more than a minute
SELECT outbox_id AS id FROM unwind.outbox WHERE state = 'due' AND due_at < :now - interval '1 minute';

-- 7. No outbox message is postponed by more than 16 minutes, or after its last attempt
SELECT outbox_id AS id
FROM unwind.outbox
WHERE state = 'due' AND (due_at > :now + interval '16 minutes' OR attempts >= 12);
