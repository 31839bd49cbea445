-- Invariants of timelines: the events of an order fold back into its rows. PostgreSQL folds them: of equal keys of an
-- object the last one counts.

-- 8. An order's events are numbered from 1 without a gap, and the last number is its version or its unlock
SELECT o.order_id AS id
FROM unwind.orders AS o
LEFT JOIN (
    SELECT order_id, count(*) AS n, min(seq) AS first, max(seq) AS last FROM unwind.events
    WHERE order_id IS NOT NULL AND (:orders IS NULL OR order_id = ANY(:orders)) GROUP BY order_id
) AS e USING (order_id)
WHERE (:orders IS NULL OR o.order_id = ANY(:orders)) AND (e.n, e.first, e.last) IS DISTINCT FROM (
    CAST(e.last AS bigint), 1,
    GREATEST(o.version, (SELECT max(a.unlock_seq) FROM unwind.alerts AS a WHERE a.order_id = o.order_id)));

-- 8. Every event starts from the status that the previous one led to, and the last one leads to the order's status
SELECT DISTINCT order_id AS id
FROM (
    SELECT
        e.order_id, e.to_status, e.from_status, o.status,
        lag(e.to_status) OVER w AS before, lead(e.seq) OVER w AS after
    FROM unwind.events AS e JOIN unwind.orders AS o USING (order_id)
    WHERE :orders IS NULL OR e.order_id = ANY(:orders)
    WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)
) AS c
WHERE from_status IS DISTINCT FROM before OR (after IS NULL AND to_status <> status);

-- 8. The events of an order are in order of time, except overtaken unlocks, and the last one is its last_event_at
SELECT DISTINCT order_id AS id
FROM (
    -- Sweeps write unlocks; a command that took effect earlier may follow them.
    SELECT
        e.order_id, e.at, o.last_event_at,
        max(e.at) FILTER (WHERE e.type NOT IN ('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')) OVER (
            PARTITION BY e.order_id ORDER BY e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before,
        max(e.at) FILTER (WHERE e.type NOT IN ('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')) OVER (
            PARTITION BY e.order_id) AS last
    FROM unwind.events AS e JOIN unwind.orders AS o USING (order_id)
    WHERE :orders IS NULL OR e.order_id = ANY(:orders)
) AS e
WHERE at < before OR last <> last_event_at;

-- 8. Replaying an order's events gives its row
SELECT stored.order_id AS id
FROM unwind.orders AS stored
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS folded
    FROM unwind.events AS e CROSS JOIN LATERAL jsonb_each(e.changes -> 'order') AS change
    WHERE e.order_id = stored.order_id AND jsonb_typeof(e.changes -> 'order') = 'object'
) AS f
WHERE (:orders IS NULL OR stored.order_id = ANY(:orders)) AND (
    stored.status, stored.previous_status, stored.payment_status, stored.order_date, stored.total, stored.fee,
    stored.fee_month, stored.cancelled_at, stored.basis, stored.cancelled_by, stored.npb_filed_at, stored.held_at,
    stored.held_until
) IS DISTINCT FROM (
    folded ->> 'status', folded ->> 'previous_status', folded ->> 'payment_status',
    CAST(folded ->> 'order_date' AS timestamptz), CAST(folded ->> 'total' AS numeric),
    CAST(folded ->> 'fee' AS numeric), to_date(folded ->> 'fee_month', 'YYYY-MM'),
    CAST(folded ->> 'cancelled_at' AS timestamptz), folded ->> 'basis', folded ->> 'cancelled_by',
    CAST(folded ->> 'npb_filed_at' AS timestamptz), CAST(folded ->> 'held_at' AS timestamptz),
    CAST(folded ->> 'held_until' AS timestamptz));

-- 8. Replaying an alert's events gives its row
SELECT stored.alert_id AS id
FROM (
    SELECT *, row_number() OVER (PARTITION BY order_id ORDER BY alert_id) AS nth
    FROM unwind.alerts WHERE :orders IS NULL OR order_id = ANY(:orders)
) AS stored
LEFT JOIN (
    -- An alert's events are numbered from its filing to the next alert's.
    SELECT order_id, seq, row_number() OVER w AS nth, lead(seq, 1, 2147483647) OVER w AS until
    FROM unwind.events
    WHERE type IN ('npb.filed', 'nrs.filed', 'nss.filed') AND (:orders IS NULL OR order_id = ANY(:orders))
    WINDOW w AS (PARTITION BY order_id ORDER BY seq)
) AS filing USING (order_id, nth)
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS folded
    FROM unwind.events AS e CROSS JOIN LATERAL jsonb_each(e.changes -> 'alert') AS change
    WHERE e.order_id = stored.order_id AND e.seq >= filing.seq AND e.seq < filing.until
        AND jsonb_typeof(e.changes -> 'alert') = 'object'
) AS f
WHERE (
    stored.kind, stored.state, stored.filed_at, stored.grounds, stored.responded_at, stored.penalty_accepted_at,
    stored.penalty_withdrawn_at, stored.extended_until, stored.unlocks_at, stored.unlocked_at, stored.closed_at
) IS DISTINCT FROM (
    folded ->> 'kind', folded ->> 'state', CAST(folded ->> 'filed_at' AS timestamptz), folded ->> 'grounds',
    CAST(folded ->> 'responded_at' AS timestamptz), CAST(folded ->> 'penalty_accepted_at' AS timestamptz),
    CAST(folded ->> 'penalty_withdrawn_at' AS timestamptz), CAST(folded ->> 'extended_until' AS timestamptz),
    CAST(folded ->> 'unlocks_at' AS timestamptz), CAST(folded ->> 'unlocked_at' AS timestamptz),
    CAST(folded ->> 'closed_at' AS timestamptz));

-- 8. Replaying a cancel request's events gives its row
SELECT stored.ocr_id AS id
FROM (
    SELECT *, row_number() OVER (PARTITION BY order_id ORDER BY ocr_id) AS nth
    FROM unwind.ocrs WHERE :orders IS NULL OR order_id = ANY(:orders)
) AS stored
LEFT JOIN (
    SELECT order_id, seq, row_number() OVER w AS nth, lead(seq, 1, 2147483647) OVER w AS until
    FROM unwind.events WHERE type = 'ocr.filed' AND (:orders IS NULL OR order_id = ANY(:orders))
    WINDOW w AS (PARTITION BY order_id ORDER BY seq)
) AS filing USING (order_id, nth)
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(change.key, change.value ORDER BY e.seq) AS folded
    FROM unwind.events AS e CROSS JOIN LATERAL jsonb_each(e.changes -> 'ocr') AS change
    WHERE e.order_id = stored.order_id AND e.seq >= filing.seq AND e.seq < filing.until
        AND jsonb_typeof(e.changes -> 'ocr') = 'object'
) AS f
WHERE (stored.filed_by, stored.reason, stored.state, stored.filed_at, stored.closed_at) IS DISTINCT FROM (
    folded ->> 'filed_by', folded ->> 'reason', folded ->> 'state', CAST(folded ->> 'filed_at' AS timestamptz),
    CAST(folded ->> 'closed_at' AS timestamptz));

-- 8. Every decided removal request has an event with that decision
SELECT r.removal_id AS id
FROM unwind.removals AS r
WHERE (:orders IS NULL OR r.order_id = ANY(:orders)) AND r.state <> 'pending' AND NOT EXISTS (
    SELECT FROM unwind.events AS e
    WHERE e.order_id = r.order_id AND e.changes -> 'removals' ->> CAST(r.removal_id AS text) = r.state);

-- 8. Every event of an order names a party in that party's role, automation for the seller, staff, or the system
SELECT DISTINCT e.order_id AS id
FROM unwind.events AS e JOIN unwind.orders AS o USING (order_id)
WHERE (:orders IS NULL OR e.order_id = ANY(:orders)) AND CASE e.role
    WHEN 'buyer' THEN e.actor <> o.buyer_id
    WHEN 'seller' THEN e.actor NOT IN (o.seller_id, 'automation')
    WHEN 'staff' THEN e.actor NOT LIKE 'staff:%'
    ELSE e.actor NOT IN ('system', 'marketplace')
END;
