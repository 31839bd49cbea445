-- The next events after a cursor, in the order of the transactions that wrote them. A cursor is `transaction.table.id`.
-- Texts that people wrote stay out (docs/guarantees.md).

CREATE OR REPLACE FUNCTION unwind.events_after(after_cursor text DEFAULT NULL, max_events integer DEFAULT 100)
RETURNS TABLE (cursor text, event jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    after bigint[]; -- transaction, table, id
    after_ids bigint[]; -- by table: those before the cursor's have no more events of its transaction
    wanted integer := least(greatest(coalesce(max_events, 100), 1), 10000);
    running bigint;
    settled bigint;
BEGIN
    -- Everything below the oldest transaction that still runs is finished. Numbers are given out for the whole server,
    -- so those that surely belong to another database are left out: whatever runs there must not hold this feed back.
    SELECT min(x::text::bigint) INTO running FROM pg_snapshot_xip(pg_current_snapshot()) AS x
    WHERE x::text::bigint % 4294967296 NOT IN (
        SELECT l.transactionid::text::bigint FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
            AND a.datname <> current_database());
    settled := coalesce(running, pg_snapshot_xmax(pg_current_snapshot())::text::bigint) + unwind.feed_base();
    IF after_cursor !~ '^[0-9]{1,18}\.[0-9]\.[0-9]{1,18}$' THEN
        RAISE EXCEPTION 'this is no cursor that events_after gave' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    after := string_to_array(coalesce(after_cursor, '0.0.0'), '.')::bigint[];
    after_ids := ARRAY(
        SELECT CASE WHEN n = after[2] THEN after[3] WHEN n > after[2] THEN -1 ELSE 9223372036854775807 END
        FROM generate_series(1, 4) AS n ORDER BY n);
    RETURN QUERY
    SELECT
        f.tx || '.' || f.source || '.' || f.id,
        jsonb_strip_nulls(jsonb_build_object(
            'specversion', '1.0', 'id', f.source || '.' || f.id, 'source', '/unwind', 'type', f.type,
            'subject', f.subject, 'datacontenttype', 'application/json', 'sequence', f.sequence,
            'time', regexp_replace(
                to_char(f.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.?0*$', '') || 'Z'
        )) || jsonb_build_object('data', f.data)
    FROM (
        (SELECT
            e.written_in AS tx, 1 AS source, e.event_id AS id, e.at, e.type, e.seq AS sequence,
            coalesce('order/' || e.order_id, 'member/' || e.member_id) AS subject,
            jsonb_build_object(
                'order_id', e.order_id, 'member_id', e.member_id, 'actor', e.actor, 'role', e.role,
                'from', e.from_status, 'to', e.to_status, 'request_id', e.request_id, 'changes', e.changes) AS data
        FROM unwind.events AS e
        WHERE (e.written_in, e.event_id) > (after[1], after_ids[1]) AND e.written_in < settled
        ORDER BY e.written_in, e.event_id LIMIT wanted)
        UNION ALL
        (SELECT
            m.written_in, 2, m.move_id, m.at, 'inventory.lot_changed', NULL, 'lot/' || m.lot_id,
            jsonb_build_object(
                'lot_id', m.lot_id, 'seller_id', m.seller_id, 'delta', m.delta, 'kind', m.kind,
                'order_id', m.order_id, 'line_no', m.line_no)
        FROM unwind.stock_moves AS m
        WHERE (m.written_in, m.move_id) > (after[1], after_ids[2]) AND m.written_in < settled
        ORDER BY m.written_in, m.move_id LIMIT wanted)
        UNION ALL
        (SELECT
            l.written_in, 3, l.line_id, l.at,
            CASE l.kind
                WHEN 'charge' THEN 'fees.charged'
                WHEN 'reversal' THEN 'fees.reversed'
                WHEN 'payment' THEN 'bills.payment_recorded'
                ELSE 'credits.posted'
            END,
            NULL, 'bill/' || l.seller_id || '/' || to_char(l.billing_month, 'YYYY-MM'),
            jsonb_build_object(
                'seller_id', l.seller_id, 'billing_month', to_char(l.billing_month, 'YYYY-MM'), 'kind', l.kind,
                'amount', l.amount::text, 'order_id', l.order_id, 'payment_id', l.payment_id)
        FROM unwind.ledger_lines AS l
        WHERE (l.written_in, l.line_id) > (after[1], after_ids[3]) AND l.written_in < settled
        ORDER BY l.written_in, l.line_id LIMIT wanted)
        UNION ALL
        (SELECT
            b.written_in, 4, b.bill_id, b.issued_at, 'bills.issued', NULL,
            'bill/' || b.seller_id || '/' || to_char(b.billing_month, 'YYYY-MM'),
            jsonb_build_object(
                'seller_id', b.seller_id, 'billing_month', to_char(b.billing_month, 'YYYY-MM'),
                'total', b.total::text, 'opening_credit', b.opening_credit::text,
                'carried_forward', b.carried_forward::text, 'due_on', b.due_on)
        FROM unwind.bills AS b
        WHERE (b.written_in, b.bill_id) > (after[1], after_ids[4]) AND b.written_in < settled
        ORDER BY b.written_in, b.bill_id LIMIT wanted)
    ) AS f
    ORDER BY f.tx, f.source, f.id LIMIT wanted;
END
$body$
