"""Pruning of old answers, submissions, outbox rows and dead letters.

Answers are kept for at least thirty days.  Only the owner of the tables may prune, by `unwind.prune_requests`, which
works in small batches; the application's role cannot delete from append-only tables.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

MIN_RETENTION_DAYS = 30
"""Callers can rely on a stored answer for this long."""
PRUNE_BATCH_SIZE = 1000

# Outbox rows about credits stay: the audit of a month reads from them in which month a late credit was due.
PRUNE_REQUESTS = f"""
CREATE OR REPLACE FUNCTION unwind.prune_requests(older_than timestamptz, batch integer DEFAULT {PRUNE_BATCH_SIZE})
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    wanted integer := least(greatest(coalesce(batch, {PRUNE_BATCH_SIZE}), 1), 10000);
    deleted integer;
    total integer := 0;
BEGIN
    IF older_than IS NULL OR older_than > clock_timestamp() - interval '{MIN_RETENTION_DAYS} days' THEN
        RAISE EXCEPTION 'answers are kept for at least {MIN_RETENTION_DAYS} days'
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
"""  # noqa: S608 - built from constants of this module

DDL: tuple[str, ...] = (
    PRUNE_REQUESTS,
    "REVOKE ALL ON FUNCTION unwind.prune_requests(timestamptz, integer) FROM PUBLIC",
)


def prune(conn: Connection, older_than: datetime, batch: int = PRUNE_BATCH_SIZE) -> int:
    """Delete one batch of each kind and return how many rows were deleted.

    Raises the database's InvalidParameterValue for less than thirty days, InsufficientPrivilege for any role but the
    owner.
    """
    deleted: int = conn.execute(
        text("SELECT unwind.prune_requests(:older_than, :batch)"), {"older_than": older_than, "batch": batch}
    ).scalar_one()
    return deleted
