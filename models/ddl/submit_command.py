"""The functions `unwind.submit_command`, which check and insert a submitted command, and the view of the answers."""

from __future__ import annotations

from models.payload_limits import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, MAX_PAYLOAD_PARTS
from models.submissions import CHANNEL

SUBMIT_COMMAND_SIGNATURE = "unwind.submit_command(text, text, text)"


SUBMIT_JSONB_SIGNATURE = "unwind.submit_command(text, jsonb, text)"


SUBMIT_DEFINER = "unwind_submit_definer"
"""Owns `submit_command` and has only the rights that the function needs."""


SUBMIT_DEFINER_GRANTS = (
    "SELECT ON unwind.commands",
    "SELECT, INSERT ON unwind.submissions",
    "SELECT (removal_id, order_id) ON unwind.removals",
    "SELECT (draft_id, order_id) ON unwind.drafts",
)


_PAYLOAD_WITHOUT_ESCAPES = r"""replace(replace(submit_command.payload, E'\\\\', ''), E'\\"', '')"""


_PUNCTUATION_COUNT = "octet_length({0}) - octet_length(translate({0}, '[]{{}},', ''))"


_WITH_NUMERIC_IDS = (
    r"""regexp_replace({0}, E'(?<!\\\\)"(order_id|lot_id|removal_id|bind_id)"\\s*:\\s*"(0|[1-9][0-9]{{0,18}})"', """
    r"""E'"\\1": \\2', 'g')::jsonb"""
)
"""The payload with ids as numbers.  Quotes inside strings are escaped, so only fields of these names match."""


_SIMILAR_COMMANDS = """
            SELECT c.name
            FROM unwind.commands AS c,
                LATERAL (SELECT count(*) AS shared FROM generate_series(1, length(c.name) - 1) AS i
                         WHERE position(substr(c.name, i, 2) IN left(submit_command.name, 100)) > 0) AS l
            WHERE 10 * l.shared >= 7 * (length(c.name) - 1)
            ORDER BY l.shared - length(c.name) DESC, c.name LIMIT 3
"""
"""Commands whose names have at least 70 % of their letter pairs in the unknown name."""


SUBMIT_COMMAND = f"""
CREATE OR REPLACE FUNCTION unwind.submit_command(name text, payload text, request_id text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    chosen text;
    document jsonb;
    fault text;
    bare text;
    of_order bigint;
    held unwind.submissions%ROWTYPE;
    inserted bigint;
BEGIN
    -- Nothing is parsed before its length and the number of its parts are known (as in models/payload_limits.py).
    IF octet_length(submit_command.payload) > {MAX_PAYLOAD_BYTES} THEN
        fault := 'PAYLOAD_TOO_LARGE';
    ELSIF octet_length(submit_command.payload) > {MAX_PAYLOAD_PARTS}
          AND {_PUNCTUATION_COUNT.format("submit_command.payload")} > {MAX_PAYLOAD_PARTS} THEN
        bare := {_PAYLOAD_WITHOUT_ESCAPES};
        IF octet_length(bare) - octet_length(replace(bare, '"', '')) > 4 * ({MAX_PAYLOAD_PARTS} + 1) THEN
            fault := 'PAYLOAD_TOO_LARGE';
        ELSIF (SELECT sum({_PUNCTUATION_COUNT.format("s.piece")})
               FROM unnest(string_to_array(bare, '"')) WITH ORDINALITY AS s(piece, number) WHERE s.number % 2 = 1)
              > {MAX_PAYLOAD_PARTS} THEN
            fault := 'PAYLOAD_TOO_LARGE';
        END IF;
        bare := NULL;
    END IF;
    IF fault IS NULL THEN
        BEGIN
            document := submit_command.payload::jsonb;
            IF document IS NULL OR jsonb_typeof(document) <> 'object' THEN
                fault := 'PAYLOAD_INVALID';
            ELSIF jsonb_path_exists(document, 'strict $.**{{{MAX_PAYLOAD_DEPTH}}}') THEN
                fault := 'PAYLOAD_TOO_DEEP';
            END IF;
        EXCEPTION
            WHEN statement_too_complex THEN fault := 'PAYLOAD_TOO_DEEP';
            WHEN OTHERS THEN fault := 'PAYLOAD_INVALID';
        END;
    END IF;
    IF fault IS NOT NULL THEN
        document := NULL;
    END IF;
    chosen := coalesce(submit_command.request_id, document ->> 'request_id', gen_random_uuid()::text);
    IF submit_command.name IS NULL
       OR NOT EXISTS (SELECT FROM unwind.commands AS c WHERE c.name = submit_command.name) THEN
        fault := 'TASK_UNKNOWN';
    ELSIF fault IS NULL AND coalesce(document ->> 'request_id', chosen) <> chosen THEN
        fault := 'PAYLOAD_INVALID';
    ELSIF fault IS NULL AND chosen !~ '^[A-Za-z0-9._:-]{{1,128}}$' THEN
        chosen := NULL;
        fault := 'REQUEST_ID_INVALID';
    END IF;
    IF fault = 'TASK_UNKNOWN' THEN
        SELECT coalesce(jsonb_agg(s.name), '[]') INTO document FROM ({_SIMILAR_COMMANDS}) AS s;
        RETURN jsonb_build_object(
            'request_id', chosen, 'accepted', false, 'code', fault, 'did_you_mean', document);
    ELSIF fault IS NOT NULL THEN
        RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', fault);
    END IF;
    -- First in, first out per order: removal requests and drafts belong to an order too.
    IF document ->> 'order_id' ~ '^[0-9]{{1,18}}$' THEN
        of_order := (document ->> 'order_id')::bigint;
    ELSIF document ->> 'removal_id' ~ '^[0-9]{{1,18}}$' THEN
        SELECT r.order_id INTO of_order FROM unwind.removals AS r
        WHERE r.removal_id = (document ->> 'removal_id')::bigint;
    ELSIF document ? 'draft_id' THEN
        SELECT d.order_id INTO of_order FROM unwind.drafts AS d WHERE d.draft_id = document ->> 'draft_id';
    END IF;
    INSERT INTO unwind.submissions (request_id, task, payload, order_id, submitted_by, submitted_at, state, due_at)
    VALUES (chosen, submit_command.name, submit_command.payload, of_order, session_user, clock_timestamp(), 'waiting',
            clock_timestamp())
    ON CONFLICT ON CONSTRAINT uq_submissions_request_id DO NOTHING RETURNING submission_id INTO inserted;
    IF inserted IS NULL THEN
        SELECT * INTO held FROM unwind.submissions AS s WHERE s.request_id = chosen;
        -- An id may be written as text (JavaScript rounds numbers above 2^53): both are the same command.
        IF held.task <> submit_command.name
           OR (held.payload::jsonb - 'request_id' <> document - 'request_id'
               AND {_WITH_NUMERIC_IDS.format("held.payload")} - 'request_id'
                   <> {_WITH_NUMERIC_IDS.format("submit_command.payload")} - 'request_id') THEN
            RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', 'REQUEST_ID_REUSED');
        END IF;
    ELSE
        PERFORM pg_notify('{CHANNEL}', '');
    END IF;
    RETURN jsonb_build_object('request_id', chosen, 'accepted', true, 'code', null);
END
$body$
"""  # noqa: S608 - built from constants of this module


_HAS_LONG_NUMBER = 'strict $.** ? (@.type() == "number") ? (@ >= 1e40 || @ <= -1e40 || (@ * 1e30).floor() != @ * 1e30)'


SUBMIT_JSONB = f"""
CREATE OR REPLACE FUNCTION unwind.submit_command(name text, payload jsonb, request_id text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    fault text;
BEGIN
    -- 1e131071 takes twelve bytes here and 128 KB as text.
    IF pg_column_size(submit_command.payload) > {MAX_PAYLOAD_BYTES} THEN
        fault := 'PAYLOAD_TOO_LARGE';
    ELSIF jsonb_path_exists(submit_command.payload, '{_HAS_LONG_NUMBER}') THEN
        fault := 'PAYLOAD_INVALID';
    ELSE
        RETURN unwind.submit_command(submit_command.name, submit_command.payload::text, submit_command.request_id);
    END IF;
    RETURN jsonb_build_object('request_id', submit_command.request_id, 'accepted', false, 'code', fault);
EXCEPTION WHEN statement_too_complex THEN
    RETURN jsonb_build_object(
        'request_id', submit_command.request_id, 'accepted', false, 'code', 'PAYLOAD_TOO_DEEP'
    );
END
$body$
"""
"""The variant for `jsonb`, which runs with the caller's rights and calls the one for text."""


COMMAND_ANSWERS_VIEW = """
CREATE OR REPLACE VIEW unwind.command_answers WITH (security_barrier = true) AS
SELECT s.request_id, s.task, s.order_id, s.state, s.answer ->> 'outcome' AS outcome, s.answer ->> 'code' AS code,
       s.answer, s.submitted_at, s.answered_at
FROM unwind.submissions AS s
UNION ALL
SELECT r.request_id, r.task, r.order_id, 'answered', r.outcome, r.answer ->> 'code', r.answer, NULL, r.answered_at
FROM unwind.requests AS r
WHERE NOT EXISTS (SELECT FROM unwind.submissions AS s WHERE s.request_id = r.request_id)
"""


DDL: tuple[str, ...] = (
    SUBMIT_COMMAND,
    SUBMIT_JSONB,
    f"REVOKE ALL ON FUNCTION {SUBMIT_COMMAND_SIGNATURE}, {SUBMIT_JSONB_SIGNATURE} FROM PUBLIC",
    COMMAND_ANSWERS_VIEW,
)
