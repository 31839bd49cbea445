-- Invariants of alerts: unlocked never early and always in time, by events and dated terms alone. Durations are added
-- in seconds, so that no session's time zone can make a day of 23 hours.

-- 1. Every alert has a filing event of its order at the same instant
SELECT COALESCE(CAST(a.alert_id AS text), 'order ' || e.order_id) AS id
FROM (
    SELECT *, row_number() OVER (PARTITION BY order_id ORDER BY alert_id) AS nth
    FROM unwind.alerts WHERE :orders IS NULL OR order_id = ANY(:orders)
) AS a FULL JOIN (
    SELECT *, row_number() OVER (PARTITION BY order_id ORDER BY seq) AS nth
    FROM unwind.events
    WHERE type IN ('npb.filed', 'nrs.filed', 'nss.filed') AND (:orders IS NULL OR order_id = ANY(:orders))
) AS e ON e.order_id = a.order_id AND e.nth = a.nth
WHERE (a.filed_at, lower(a.kind) || '.filed') IS DISTINCT FROM (e.at, e.type);

-- 1. Every alert has the terms that were in force when it was filed, or that began before its filing was recorded
SELECT a.alert_id AS id
FROM unwind.alerts AS a LEFT JOIN unwind.terms AS t USING (terms_id)
WHERE (:orders IS NULL OR a.order_id = ANY(:orders)) AND (
    a.terms_id <> 0 AND t.terms_id IS NULL
    OR t.valid_from > a.filed_at + interval '24 hours'
    OR EXISTS (
        SELECT FROM unwind.terms AS n
        WHERE n.valid_from < a.filed_at
            AND (t.terms_id IS NULL OR (n.valid_from, n.terms_id) > (t.valid_from, t.terms_id))));

-- 1. Every unlocked alert has exactly one unlock event at that instant
SELECT a.alert_id AS id
FROM unwind.alerts AS a
WHERE (:orders IS NULL OR a.order_id = ANY(:orders)) AND a.unlocked_at IS NOT NULL AND 1 <> (
    SELECT count(*) FROM unwind.events AS e
    WHERE e.order_id = a.order_id AND e.at = a.unlocked_at AND e.type = lower(a.kind) || '.unlocked');

WITH lifecycle AS NOT MATERIALIZED (
    -- Each alert with its filing among the events, the number of the next one, and the terms it was filed under.
    SELECT
        a.*, f.seq, f.at AS began, f.until,
        extract(epoch FROM CAST(COALESCE(t.settings ->> 'NPB_UNLOCK_NO_RESPONSE', '168h') AS interval))
            * interval '1 second' AS unanswered,
        extract(epoch FROM CAST(COALESCE(t.settings ->> 'NPB_UNLOCK_RESPONSE', '336h') AS interval))
            * interval '1 second' AS answered,
        extract(epoch FROM CAST(COALESCE(t.settings ->> 'SELLER_ALERT_UNLOCK', '336h') AS interval))
            * interval '1 second' AS sellers,
        COALESCE(t.settings ->> 'NPB_LATE_RESPONSE', 'sticky') = 'relock' AS relocks
    FROM (
        SELECT *, row_number() OVER (PARTITION BY order_id ORDER BY alert_id) AS nth
        FROM unwind.alerts WHERE :orders IS NULL OR order_id = ANY(:orders)
    ) AS a JOIN (
        SELECT order_id, seq, at, row_number() OVER w AS nth, lead(seq, 1, 2147483647) OVER w AS until
        FROM unwind.events
        WHERE type IN ('npb.filed', 'nrs.filed', 'nss.filed') AND (:orders IS NULL OR order_id = ANY(:orders))
        WINDOW w AS (PARTITION BY order_id ORDER BY seq)
    ) AS f ON f.order_id = a.order_id AND f.nth = a.nth
    LEFT JOIN unwind.terms AS t ON t.terms_id = a.terms_id
),
deadline AS NOT MATERIALIZED (
    -- From when an alert allows cancelling without a penalty, as of a moment of its life: each unlock, its order's
    -- cancellation, and its end. The buyer's first answer and the last extension before the moment count.
    SELECT
        life.*, moment.seq AS moment_seq, moment.type AS moment, moment.at AS moment_at, answer.at AS answered_at,
        GREATEST(answer.extended, CASE
            WHEN life.kind <> 'NPB' THEN life.began + life.sellers
            WHEN answer.at < life.began + life.unanswered OR answer.at IS NOT NULL AND life.relocks
                THEN life.began + life.answered
            ELSE life.began + life.unanswered
        END) AS mature_at
    FROM lifecycle AS life
    CROSS JOIN LATERAL (
        SELECT e.seq, e.type, e.at FROM unwind.events AS e
        WHERE e.order_id = life.order_id AND e.seq > life.seq AND e.seq < life.until
            AND e.type IN ('npb.unlocked', 'nrs.unlocked', 'nss.unlocked', 'orders.cancelled')
        UNION ALL
        SELECT life.until, 'end', NULL
    ) AS moment
    CROSS JOIN LATERAL (
        SELECT
            min(e.at) FILTER (WHERE e.type IN ('npb.responded', 'npb.taken_back')) AS at,
            max(CAST(e.changes #>> '{alert,extended_until}' AS timestamptz))
                FILTER (WHERE e.type = 'npb.extended') AS extended
        FROM unwind.events AS e
        WHERE e.order_id = life.order_id AND e.seq > life.seq AND e.seq < moment.seq
    ) AS answer
)
-- 1. No alert was unlocked before its deadline, computed from when it was filed and first answered
SELECT DISTINCT d.alert_id AS id
FROM deadline AS d
WHERE :part = 1 AND d.moment = lower(d.kind) || '.unlocked' AND d.moment_at < d.mature_at
UNION ALL
-- 1. The deadline stored with an alert equals the one computed from its events and terms
SELECT d.alert_id
FROM deadline AS d
LEFT JOIN LATERAL (
    SELECT CASE e.type WHEN 'npb.penalty_accepted' THEN e.at END AS accepted FROM unwind.events AS e
    WHERE e.order_id = d.order_id AND e.seq > d.seq AND e.seq < d.until
        AND e.type IN ('npb.penalty_accepted', 'npb.taken_back')
    ORDER BY e.seq DESC LIMIT 1
) AS penalty ON true
WHERE :part = 2 AND d.moment = 'end' AND d.unlocks_at <> LEAST(penalty.accepted, d.mature_at)
UNION ALL
-- 1. No alert answered, accepted or closed in time is marked as unlocked
SELECT DISTINCT d.alert_id
FROM deadline AS d
WHERE :part = 3 AND d.moment = 'end' AND (
    d.unlocked_at < d.mature_at AND COALESCE(d.answered_at < d.mature_at, true)
    OR d.unlocked_at > d.closed_at
    OR EXISTS (
        SELECT FROM unwind.events AS e
        WHERE e.order_id = d.order_id AND e.seq > d.seq AND e.seq < d.until
            AND e.type = 'npb.penalty_accepted' AND e.at < d.unlocked_at
            AND NOT EXISTS (
                SELECT FROM unwind.events AS b
                WHERE b.order_id = e.order_id AND b.seq > e.seq AND b.seq < d.until
                    AND b.type = 'npb.taken_back' AND b.at <= d.unlocked_at)))
UNION ALL
-- 2. No order was cancelled through an alert that was not open and mature at that instant
SELECT o.order_id
FROM unwind.orders AS o
JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
LEFT JOIN deadline AS d ON d.order_id = o.order_id AND d.moment = 'orders.cancelled' AND d.moment_seq = c.seq
WHERE :part = 4 AND (:orders IS NULL OR o.order_id = ANY(:orders)) AND o.basis IN ('NPB', 'NRS', 'NSS') AND (
    d.kind IS DISTINCT FROM o.basis
    OR c.at < d.mature_at
    OR EXISTS (
        SELECT FROM unwind.events AS r
        WHERE r.order_id = o.order_id AND r.seq > d.seq AND r.seq < c.seq
            AND r.type IN ('npb.removed', 'nrs.removed', 'nss.removed')));
