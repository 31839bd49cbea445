-- Check a submitted command and insert it. Texts with too many parts are refused before they are parsed, by the limits
-- of models/payload_limits.py.

CREATE OR REPLACE FUNCTION unwind.submit_command(name text, payload text, request_id text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    max_bytes constant integer := 16777216;
    max_parts constant integer := 50000;
    -- The payload with ids as numbers. Quotes inside strings are escaped, so only fields of these names match.
    id_as_text constant text := E'(?<!\\\\)"(order_id|lot_id|removal_id|bind_id)"\\s*:\\s*"(0|[1-9][0-9]{0,18})"';
    id_as_number constant text := E'"\\1": \\2';
    chosen text;
    document jsonb;
    fault text;
    bare text;
    of_order bigint;
    held unwind.submissions%ROWTYPE;
    inserted bigint;
BEGIN
    -- Nothing is parsed before its length and the number of its parts are known (as in models/payload_limits.py).
    IF octet_length(submit_command.payload) > max_bytes THEN
        fault := 'PAYLOAD_TOO_LARGE';
    ELSIF octet_length(submit_command.payload) > max_parts  -- counting costs more than this
          AND octet_length(submit_command.payload)
              - octet_length(translate(submit_command.payload, '[]{},', '')) > max_parts THEN
        bare := replace(replace(submit_command.payload, E'\\\\', ''), E'\\"', '');
        fault := CASE
            WHEN octet_length(bare) - octet_length(replace(bare, '"', '')) > 4 * (max_parts + 1)
            THEN 'PAYLOAD_TOO_LARGE'
            WHEN (SELECT sum(octet_length(s.piece) - octet_length(translate(s.piece, '[]{},', '')))
                  FROM unnest(string_to_array(bare, '"')) WITH ORDINALITY AS s(piece, number) WHERE s.number % 2 = 1)
                 > max_parts
            THEN 'PAYLOAD_TOO_LARGE'
        END;
        bare := NULL;
    END IF;
    IF fault IS NULL THEN
        BEGIN
            document := submit_command.payload::jsonb;
            IF document IS NULL OR jsonb_typeof(document) <> 'object' THEN
                fault := 'PAYLOAD_INVALID';
            ELSIF jsonb_path_exists(document, 'strict $.**{20}') THEN
                fault := 'PAYLOAD_TOO_DEEP';
            END IF;
        EXCEPTION
            WHEN statement_too_complex THEN fault := 'PAYLOAD_TOO_DEEP';
            WHEN OTHERS THEN fault := 'PAYLOAD_INVALID';
        END;
    END IF;
    chosen := coalesce(
        submit_command.request_id, CASE WHEN fault IS NULL THEN document ->> 'request_id' END, gen_random_uuid()::text);
    IF submit_command.name IS NULL
       OR NOT EXISTS (SELECT FROM unwind.commands AS c WHERE c.name = submit_command.name) THEN
        fault := 'TASK_UNKNOWN';
    ELSIF fault IS NULL AND coalesce(document ->> 'request_id', chosen) <> chosen THEN
        fault := 'PAYLOAD_INVALID';
    ELSIF fault IS NULL AND chosen !~ '^[A-Za-z0-9._:-]{1,128}$' THEN
        chosen := NULL;
        fault := 'REQUEST_ID_INVALID';
    END IF;
    IF fault = 'TASK_UNKNOWN' THEN
        -- Commands whose names have at least 70 % of their letter pairs in the unknown name.
        SELECT coalesce(jsonb_agg(s.name), '[]') INTO document
        FROM (
            SELECT c.name
            FROM unwind.commands AS c, LATERAL (
                SELECT count(*) AS shared FROM generate_series(1, length(c.name) - 1) AS i
                WHERE position(substr(c.name, i, 2) IN left(submit_command.name, 100)) > 0) AS l
            WHERE 10 * l.shared >= 7 * (length(c.name) - 1)
            ORDER BY l.shared - length(c.name) DESC, c.name LIMIT 3
        ) AS s;
        RETURN jsonb_build_object(
            'request_id', chosen, 'accepted', false, 'code', fault, 'did_you_mean', document);
    ELSIF fault IS NULL THEN
        -- First in, first out per order: removal requests and drafts belong to an order too.
        IF document ->> 'order_id' ~ '^[0-9]{1,18}$' THEN
            of_order := (document ->> 'order_id')::bigint;
        ELSIF document ->> 'removal_id' ~ '^[0-9]{1,18}$' THEN
            SELECT r.order_id INTO of_order FROM unwind.removals AS r
            WHERE r.removal_id = (document ->> 'removal_id')::bigint;
        ELSIF document ? 'draft_id' THEN
            SELECT d.order_id INTO of_order FROM unwind.drafts AS d WHERE d.draft_id = document ->> 'draft_id';
        END IF;
        INSERT INTO unwind.submissions (request_id, task, payload, order_id, submitted_by, submitted_at, state, due_at)
        VALUES (chosen, submit_command.name, submit_command.payload, of_order, session_user, clock_timestamp(),
                'waiting', clock_timestamp())
        ON CONFLICT ON CONSTRAINT uq_submissions_request_id DO NOTHING RETURNING submission_id INTO inserted;
        IF inserted IS NULL THEN
            SELECT * INTO held FROM unwind.submissions AS s WHERE s.request_id = chosen;
            -- An id may be written as text (JavaScript rounds numbers above 2^53): both are the same command.
            IF held.task <> submit_command.name
               OR (held.payload::jsonb - 'request_id' <> document - 'request_id'
                   AND regexp_replace(held.payload, id_as_text, id_as_number, 'g')::jsonb - 'request_id' <>
                       regexp_replace(submit_command.payload, id_as_text, id_as_number, 'g')::jsonb - 'request_id')
            THEN
                fault := 'REQUEST_ID_REUSED';
            END IF;
        ELSE
            PERFORM pg_notify('unwind_submissions', '');
        END IF;
    END IF;
    RETURN jsonb_build_object('request_id', chosen, 'accepted', fault IS NULL, 'code', fault);
END
$body$
