-- Delete one batch of old answers, submissions, outbox rows, used links and dead letters; return how many rows.
-- Outbox rows about credits stay: the audit of a month reads from them in which month a late credit was due.

CREATE OR REPLACE FUNCTION unwind.prune_requests(older_than timestamptz, batch integer DEFAULT 1000)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    wanted integer := least(greatest(coalesce(batch, 1000), 1), 10000);
    deleted integer;
    total integer := 0;
BEGIN
    IF older_than IS NULL OR older_than > clock_timestamp() - interval '30 days' THEN
        RAISE EXCEPTION 'answers are kept for at least 30 days'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM unwind.requests AS r WHERE r.request_id = ANY (ARRAY(
        SELECT o.request_id FROM unwind.requests AS o WHERE o.answered_at < older_than
        ORDER BY o.answered_at LIMIT wanted FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    DELETE FROM unwind.submissions AS s WHERE s.submission_id = ANY (ARRAY(
        SELECT o.submission_id FROM unwind.submissions AS o WHERE o.state = 'answered' AND o.answered_at < older_than
        ORDER BY o.answered_at LIMIT wanted FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    DELETE FROM unwind.outbox AS p WHERE p.outbox_id = ANY (ARRAY(
        SELECT o.outbox_id FROM unwind.outbox AS o
        WHERE o.state = 'done' AND o.done_at < older_than AND o.task <> 'credits.post_to_next_invoice'
        ORDER BY o.done_at LIMIT wanted FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    DELETE FROM unwind.web_links AS w WHERE w.link_hash = ANY (ARRAY(
        SELECT o.link_hash FROM unwind.web_links AS o WHERE o.used_at < older_than
        ORDER BY o.used_at LIMIT wanted FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
    DELETE FROM unwind.dead_letters AS m WHERE m.dead_letter_id = ANY (ARRAY(
        SELECT o.dead_letter_id FROM unwind.dead_letters AS o WHERE o.received_at < older_than
        ORDER BY o.dead_letter_id LIMIT wanted FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN total + deleted;
END
$body$
