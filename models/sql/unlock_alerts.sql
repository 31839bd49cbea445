-- Unlock due alerts of these kinds, oldest first, with an event and a message to the party that filed each.
-- The order's lock guards the alert, so only orders are locked; locked ones and those with a later event wait for the
-- next sweep. The order's row does not change: the alert has the number of the event, and an unlock is never later than
-- a command.
-- The ids go through arrays so that the planner does not read whole tables.

WITH due AS MATERIALIZED (
    SELECT
        a.alert_id, a.order_id, a.unlocks_at, a.cancels_at, o.status, GREATEST(o.version, a.unlock_seq) + 1 AS seq,
        CASE a.kind WHEN 'NPB' THEN 'seller' ELSE 'buyer' END AS role,
        CASE a.kind WHEN 'NPB' THEN o.seller_id ELSE o.buyer_id END AS filer,
        CASE a.kind WHEN 'NPB' THEN 'npb_unlocked' ELSE 'seller_alert_unlocked' END AS notice,
        first.seconds AS first_reminder_after
    FROM unwind.alerts AS a
    JOIN unwind.orders AS o USING (order_id)
    LEFT JOIN unnest(CAST(:terms AS integer[]), CAST(:firsts AS float8[])) AS first (terms_id, seconds) USING (terms_id)
    WHERE a.kind = ANY (CAST(:kinds AS text[]))
        AND a.state = 'open' AND a.unlocked_at IS NULL AND NOT a.penalty_stands
        AND a.unlocks_at <= :now
        AND (a.unlocks_at, a.alert_id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS bigint))
        AND o.last_event_at <= :now
    ORDER BY a.unlocks_at, a.alert_id LIMIT :limit
    FOR NO KEY UPDATE OF o SKIP LOCKED
),
unlocked AS (
    -- Checks the alert again: a command may have closed or postponed it before the lock.
    UPDATE unwind.alerts AS a
    SET unlocked_at = :now, unlock_seq = d.seq, remind_from = :now, reminders = 0,
        remind_at = CAST(:now AS timestamptz) + interval '1 second' * d.first_reminder_after
    FROM due AS d
    WHERE a.order_id = ANY (ARRAY(SELECT order_id FROM due)) AND a.order_id = d.order_id AND a.alert_id = d.alert_id
        AND a.state = 'open' AND a.unlocked_at IS NULL AND NOT a.penalty_stands AND a.unlocks_at <= :now
    RETURNING d.*, a.kind
),
new_events AS (
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT
        u.order_id, u.seq, :now, lower(u.kind) || '.unlocked', 'system', 'system', u.status, u.status,
        :note, CAST(:changes AS jsonb)
    FROM unlocked AS u
),
new_messages AS (
    -- The instant is written as policies.timestamps.format_timestamp does. The payload is written as text, which takes
    -- about two thirds of the time of jsonb_build_object (B21). The sweep handles the messages of a small batch itself;
    -- the relay takes what is left of them later.
    INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at)
    SELECT
        u.notice || ':' || u.order_id || ':' || u.seq || ':' || u.filer, 'notices.tell_' || u.role, u.order_id,
        CAST(
            '{"event": "' || u.notice || '", "recipient": ' || to_json(u.filer) || ', "role": "' || u.role
            || '", "facts": {"kind": "' || u.kind
            || '", "unlocks_at": ' || rtrim(CAST(to_json(u.unlocks_at AT TIME ZONE 'UTC') AS text), '"') || 'Z"'
            || COALESCE(
                ', "cancels_at": ' || rtrim(CAST(to_json(u.cancels_at AT TIME ZONE 'UTC') AS text), '"') || 'Z"', '')
            || '}}' AS jsonb),
        :now,
        CASE WHEN (SELECT count(*) FROM unlocked) > :messages THEN :now ELSE :relay_at END
    FROM unlocked AS u
    RETURNING outbox_id
)
SELECT
    count(*) AS due, (SELECT count(*) FROM unlocked) AS unlocked, max(unlocks_at) AS last_at,
    max(alert_id) FILTER (WHERE unlocks_at = (SELECT max(unlocks_at) FROM due)) AS last_id,
    ARRAY(SELECT outbox_id FROM new_messages LIMIT :messages) AS messages
FROM due
