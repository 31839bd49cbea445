-- The variant for `jsonb`, which runs with the caller's rights and calls the one for text.

CREATE OR REPLACE FUNCTION unwind.submit_command(name text, payload jsonb, request_id text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    long_number constant jsonpath :=
        'strict $.** ? (@.type() == "number") ? (@ >= 1e40 || @ <= -1e40 || (@ * 1e30).floor() != @ * 1e30)';
    fault text;
BEGIN
    -- 1e131071 takes twelve bytes here and 128 KB as text.
    IF pg_column_size(submit_command.payload) > 16777216 THEN
        fault := 'PAYLOAD_TOO_LARGE';
    ELSIF jsonb_path_exists(submit_command.payload, long_number) THEN
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
