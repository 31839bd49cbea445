-- Delete one batch of old answers, submissions, outbox rows, used links and dead letters; return how many rows.
-- Outbox rows about credits stay: the audit of a month reads from them in which month a late credit was due.

CREATE OR REPLACE FUNCTION unwind.prune_requests(older_than timestamptz, batch integer DEFAULT 1000)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    kind record;
    wanted integer := least(greatest(coalesce(batch, 1000), 1), 10000);
    deleted integer;
    total integer := 0;
BEGIN
    IF older_than IS NULL OR older_than > clock_timestamp() - interval '30 days' THEN
        RAISE EXCEPTION 'answers are kept for at least 30 days'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR kind IN
        SELECT * FROM (VALUES
            ('requests', 'request_id', 'answered_at', 'true'),
            ('submissions', 'submission_id', 'answered_at', 'state = ''answered'''),
            ('outbox', 'outbox_id', 'done_at', 'state = ''done'' AND task <> ''credits.post_to_next_invoice'''),
            ('web_links', 'link_hash', 'used_at', 'true'),
            ('dead_letters', 'dead_letter_id', 'received_at', 'true')
        ) AS k (name, key, ended_at, condition)
    LOOP
        EXECUTE format(
            'DELETE FROM unwind.%1$I WHERE %2$I = ANY (ARRAY(SELECT %2$I FROM unwind.%1$I WHERE %3$I < $1 AND %4$s '
            'ORDER BY %3$I LIMIT $2 FOR UPDATE SKIP LOCKED))', kind.name, kind.key, kind.ended_at, kind.condition)
        USING older_than, wanted;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
    END LOOP;
    RETURN total;
END
$body$
