-- Invariants of automation: deadlines follow from the facts, automatic acts from the settings in force at the time. A
-- day is 24 hours, so that no session's time zone can make one of 23.

-- 1. The stored time of an automatic cancellation follows from alert, payment, hold and settings
SELECT a.alert_id AS id
FROM unwind.alerts AS a
JOIN unwind.orders AS o USING (order_id)
JOIN unwind.members AS m ON m.member_id = o.seller_id
WHERE (:orders IS NULL OR a.order_id = ANY(:orders)) AND a.cancels_at IS DISTINCT FROM CASE
    WHEN a.state = 'open' AND a.kind = 'NPB' AND o.payment_status = 'None' AND m.terminated_at IS NULL
        AND NOT COALESCE(m.automation -> 'exclude_buyers' ? o.buyer_id, false)
        AND (o.held_at IS NULL OR o.held_until IS NOT NULL)
        AND m.automation #>> '{cancel_after_unlock,value}' IS NOT NULL
    THEN GREATEST(
        o.held_until,
        CASE WHEN a.penalty_stands THEN a.penalty_accepted_at ELSE a.unlocks_at END
            + CAST(m.automation #>> '{cancel_after_unlock,value}' AS integer) * interval '24 hours')
END;

-- 1. The stored time of an automatic alert follows from the order, its payment, hold and settings
SELECT o.order_id AS id
FROM unwind.orders AS o JOIN unwind.members AS m ON m.member_id = o.seller_id
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND (
    (o.files_npb_at IS NULL) <> NOT COALESCE(
        o.status NOT IN ('NPB', 'NPX', 'NRS', 'NSS', 'CANCELLED') AND o.payment_status = 'None'
        AND m.terminated_at IS NULL AND NOT m.automation -> 'exclude_buyers' ? o.buyer_id
        AND (o.held_at IS NULL OR o.held_until IS NOT NULL)
        AND m.automation #>> '{file_npb_after,value}' IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM unwind.events AS f
            WHERE f.order_id = o.order_id AND f.type = 'npb.filed' AND f.at >= o.order_date),
        false)
    OR o.files_npb_at < GREATEST(
        o.held_until,
        o.order_date + CAST(m.automation #>> '{file_npb_after,value}' AS integer) * interval '24 hours'));

WITH act AS NOT MATERIALIZED (
    -- Each act of automation with its order and the settings of the seller that were in force.
    SELECT e.seq, e.type, e.at, o.*, s.automation
    FROM unwind.events AS e
    JOIN unwind.orders AS o USING (order_id)
    LEFT JOIN LATERAL (
        SELECT x.changes -> 'automation' AS automation FROM unwind.events AS x
        WHERE x.member_id = o.seller_id AND x.type = 'sellers.automation_set' AND x.event_id < e.event_id
        ORDER BY x.event_id DESC LIMIT 1
    ) AS s ON true
    WHERE (:orders IS NULL OR e.order_id = ANY(:orders)) AND e.actor = 'automation'
)
-- 1. Every automatic alert was filed unpaid and in time, under a setting that was in force
SELECT act.order_id AS id
FROM act
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(change.key, change.value ORDER BY x.seq) AS folded
    FROM unwind.events AS x CROSS JOIN LATERAL jsonb_each(x.changes -> 'order') AS change
    WHERE x.order_id = act.order_id AND x.seq < act.seq AND jsonb_typeof(x.changes -> 'order') = 'object'
) AS before
WHERE :part = 1 AND act.type = 'npb.filed' AND NOT COALESCE(
    folded ->> 'payment_status' = 'None' AND NOT act.automation -> 'exclude_buyers' ? act.buyer_id
    AND act.at >= CAST(folded ->> 'order_date' AS timestamptz)
        + CAST(act.automation #>> '{file_npb_after,value}' AS integer) * interval '24 hours',
    false)
UNION ALL
-- 1. Every automatic cancellation came at or after its time, unpaid, under a setting that was in force
SELECT act.order_id
FROM act
LEFT JOIN LATERAL (
    SELECT * FROM unwind.alerts AS a
    WHERE a.order_id = act.order_id AND a.closed_at = act.at ORDER BY a.alert_id DESC LIMIT 1
) AS a ON true
WHERE :part = 2 AND act.type = 'orders.cancelled' AND act.basis <> 'OCR_BUYER' AND NOT COALESCE(
    act.payment_status = 'None' AND (act.held_at IS NULL OR act.held_until <= act.at)
    AND NOT act.automation -> 'exclude_buyers' ? act.buyer_id
    AND act.at >= CASE WHEN a.penalty_stands THEN a.penalty_accepted_at ELSE a.unlocks_at END
        + CAST(act.automation #>> '{cancel_after_unlock,value}' AS integer) * interval '24 hours',
    false)
UNION ALL
-- 1. The stored time of an automatic answer to a request follows from the request, its payment, hold and settings
SELECT r.ocr_id
FROM unwind.ocrs AS r
JOIN unwind.orders AS o USING (order_id)
JOIN unwind.members AS m ON m.member_id = o.seller_id
LEFT JOIN unwind.terms AS t ON t.terms_id = r.terms_id
CROSS JOIN LATERAL (
    SELECT
        r.state = 'open' AND r.filed_by = 'buyer' AND m.terminated_at IS NULL
            AND NOT COALESCE(m.automation -> 'exclude_buyers' ? o.buyer_id, false)
            AND (o.held_at IS NULL OR o.held_until IS NOT NULL) AS touched,
        o.payment_status IN ('None', 'Pending', 'Sent') AS unpaid,
        COALESCE(
            o.payment_status IN ('None', 'Pending', 'Sent')
            AND r.previous_status IN ('PENDING', 'UPDATED', 'PROCESSING', 'READY')
            AND r.filed_at <= o.order_date
                + CAST(m.automation #>> '{agree_to_requests_within,value}' AS integer) * interval '1 hour',
            false) AS at_once,
        extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,agree_after}' AS interval))
            * interval '1 second' AS agrees,
        extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,decline_after}' AS interval))
            * interval '1 second' AS declines
) AS c
WHERE :part = 3 AND (:orders IS NULL OR r.order_id = ANY(:orders))
    AND (r.agrees_at, r.declines_at) IS DISTINCT FROM (
    CASE
        WHEN touched AND at_once THEN GREATEST(o.held_until, r.filed_at)
        WHEN touched AND unpaid AND agrees IS NOT NULL THEN GREATEST(o.held_until, r.filed_at + agrees)
    END,
    CASE
        WHEN touched AND NOT at_once AND declines IS NOT NULL THEN GREATEST(o.held_until, r.filed_at + declines)
    END)
UNION ALL
-- 1. Every automatic answer to a request came at or after its time, under a setting or term that was in force
SELECT act.order_id
FROM act
LEFT JOIN LATERAL (
    SELECT * FROM unwind.ocrs AS r
    WHERE r.order_id = act.order_id AND r.closed_at = act.at ORDER BY r.ocr_id DESC LIMIT 1
) AS r ON true
LEFT JOIN unwind.terms AS t ON t.terms_id = r.terms_id
WHERE :part = 4 AND (act.type = 'ocr.declined' OR act.type = 'orders.cancelled' AND act.basis = 'OCR_BUYER') AND (
    r.ocr_id IS NULL OR r.filed_by <> 'buyer'
    OR COALESCE(act.automation -> 'exclude_buyers' ? act.buyer_id, false)
    OR NOT COALESCE(CASE
        WHEN act.type = 'ocr.declined' THEN act.at >= r.filed_at
            + extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,decline_after}' AS interval))
            * interval '1 second'
        ELSE act.payment_status IN ('None', 'Pending', 'Sent')
            AND (act.held_at IS NULL OR act.held_until <= act.at) AND (
                act.at >= r.filed_at
                    + extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,agree_after}' AS interval))
                    * interval '1 second'
                OR r.previous_status IN ('PENDING', 'UPDATED', 'PROCESSING', 'READY') AND r.filed_at <= act.order_date
                    + CAST(act.automation #>> '{agree_to_requests_within,value}' AS integer)
                    * interval '1 hour')
    END, false));
