"""How does a caller submit a command with SQL, inside a transaction of its own?  The second door, beside the broker's.

`SELECT unwind.submit_command(name, payload, request_id)` writes a row that commits or rolls back with the caller, works while
Redis is down, and is drained in sets.  Commands about one order are taken in the order in which they were submitted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Identity, Index, Integer, Table, Text, func, text, update

from models.requests import Answer
from models.schema import Instant, Json, metadata, one_of

CHANNEL = "unwind_submissions"
"""NOTIFY channel on which a commit with a submission wakes the drain."""
LEASE = timedelta(seconds=10)
"""A drain that died holds its set for so long: everything must be done within 30 s after the last fault, be it the second one that
hit this set.  Should a drain only be slow, another does the set beside it and finds the same answers."""
LONGEST_WAIT = timedelta(minutes=15)
MOST_ATTEMPTS = 10
PAYLOAD_BYTES = 16 * 2**20
PUBLIC_TASKS = (
    "bills.record_payment",
    "credits.post_manual",
    "drafts.edit",
    "drafts.open",
    "drafts.verify",
    "inventory.record_lot",
    "members.record",
    "members.reinstate",
    "members.terminate",
    "npb.accept_penalty",
    "npb.file",
    "npb.remove",
    "npb.respond",
    "npb.take_back",
    "nrs.file",
    "nrs.remove",
    "nrs.respond",
    "nss.file",
    "nss.remove",
    "nss.respond",
    "ocr.decline",
    "ocr.file",
    "ocr.withdraw",
    "orders.add_batch",
    "orders.cancel",
    "orders.cancel_many",
    "orders.options",
    "orders.record_payment",
    "orders.set_status",
    "orders.submit",
    "removals.approve",
    "removals.deny",
    "removals.request",
    "removals.withdraw",
    "terms.apply",
)
"""What may be submitted: the frozen wire names of contract 2.2 and 2.3 (a test compares them with the registered tasks)."""

submissions = Table(
    "submissions",
    metadata,
    Column("submission_id", BigInteger, Identity(), primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("order_id", BigInteger),
    Column("submitted_by", Text, nullable=False),
    Column("submitted_at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("answer", Json),
    Column("answered_at", Instant),
    Column("first_error", Text),
    Column("last_error", Text),
    one_of("state", ("waiting", "answered", "dead")),
    # In the order in which they are taken, so that a set of a hundred reads a hundred of however many wait.
    Index("ix_submissions_due", "submission_id", "due_at", postgresql_where=text("state = 'waiting'")),
    Index("ix_submissions_answered", "answered_at", postgresql_where=text("state = 'answered'")),
    Index("ix_submissions_order", "order_id", "submission_id", postgresql_where=text("state = 'waiting'")),
)


@dataclass(frozen=True, slots=True)
class Submission:
    """One command as it was submitted."""

    submission_id: int
    request_id: str
    task: str
    payload: dict[str, Any]
    submitted_at: datetime
    attempts: int


def claim(conn: Connection, now: datetime, *, limit: int) -> list[Submission]:
    """Lease the commands that are due: per order only the first that waits, so that a later one waits for the next set.

    What an operator has paused stays as it is, and later commands about the same order wait behind it.
    """
    rows = conn.execute(
        text(
            """
            WITH first AS MATERIALIZED (
                SELECT s.submission_id FROM unwind.submissions AS s
                WHERE s.state = 'waiting' AND s.due_at <= :now AND NOT EXISTS (
                    SELECT FROM unwind.submissions AS earlier
                    WHERE earlier.order_id = s.order_id AND earlier.state = 'waiting'
                      AND earlier.submission_id < s.submission_id)
                  AND NOT EXISTS (
                    SELECT FROM unwind.pauses AS p
                    WHERE p.resumed_at IS NULL AND (p.until IS NULL OR p.until > :now)
                      AND ((p.kind = 'task' AND p.name = s.task) OR (p.kind = 'queue' AND p.name = 'commands')))
                ORDER BY s.submission_id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
            )
            UPDATE unwind.submissions AS s SET attempts = attempts + 1, due_at = :again
            WHERE s.submission_id = ANY (ARRAY(SELECT submission_id FROM first))
            RETURNING s.submission_id, s.request_id, s.task, s.payload, s.submitted_at, s.attempts
            """
        ),
        {"now": now, "again": now + LEASE, "limit": limit},
    )
    found = [Submission(r.submission_id, r.request_id, r.task, r.payload, r.submitted_at, r.attempts) for r in rows]
    return sorted(found, key=lambda s: s.submission_id)


def answered(conn: Connection, answers: Sequence[tuple[Submission, Answer]], now: datetime) -> None:
    """Write the answers, for `unwind.command_answers`.  The first one stays: a drain that was overtaken changes nothing."""
    conn.execute(
        _ANSWERED,
        {
            "ids": [s.submission_id for s, _ in answers],
            "answers": [json.dumps(a.as_json()) for _, a in answers],
            "now": now,
        },
    )


_ANSWERED = text(
    """
    UPDATE unwind.submissions AS s SET state = 'answered', answer = CAST(v.answer AS jsonb), answered_at = :now
    FROM unnest(CAST(:ids AS bigint[]), CAST(:answers AS text[])) AS v(id, answer)
    WHERE s.submission_id = v.id AND s.state <> 'answered'
    """
)


def failed(conn: Connection, submission: Submission, error: str, now: datetime) -> str | None:
    """Put a command off that raised, ever longer; gives its first error if it has used up its attempts and is dead now."""
    dead = submission.attempts >= MOST_ATTEMPTS
    wait = min(LONGEST_WAIT.total_seconds(), 2.0**submission.attempts)
    first: str | None = conn.execute(
        update(submissions)
        .where(submissions.c.submission_id == submission.submission_id, submissions.c.state != "answered")
        .values(
            state="dead" if dead else "waiting",
            due_at=now + timedelta(seconds=wait),
            first_error=func.coalesce(submissions.c.first_error, error[:2000]),
            last_error=error[:2000],
        )
        .returning(submissions.c.first_error)
    ).scalar_one_or_none()
    return first if dead else None


def again(conn: Connection, task: str, arguments: Mapping[str, Any], request_id: str, now: datetime) -> bool:
    """Take a command that was given up once more, from its first try; false when this door cannot take it.

    A row, not a message: it is there with the commit that takes the command from the dead jobs, whatever the broker does.
    """
    revived = conn.execute(
        update(submissions)
        .where(submissions.c.request_id == request_id, submissions.c.state == "dead", submissions.c.task == task)
        .values(state="waiting", attempts=0, due_at=now, first_error=None, last_error=None)
    )
    if revived.rowcount:
        return True
    taken = conn.execute(
        text("SELECT unwind.submit_command(:task, CAST(:payload AS jsonb), :request_id)"),
        {"task": task, "payload": json.dumps(dict(arguments) | {"request_id": request_id}), "request_id": request_id},
    ).scalar_one()
    return bool(taken["accepted"])


def oldest_waiting(conn: Connection) -> datetime | None:
    """When the oldest command that waits was submitted."""
    return conn.execute(text("SELECT min(submitted_at) FROM unwind.submissions WHERE state = 'waiting'")).scalar()


SUBMIT_COMMAND_SIGNATURE = "unwind.submit_command(text, jsonb, text)"
SUBMIT_DEFINER = "unwind_submit_definer"
"""Owns `submit_command` and has only the rights that the function needs, so that its misuse gives nobody more."""
SUBMIT_DEFINER_GRANTS = (
    "SELECT, INSERT ON unwind.submissions",
    "SELECT (removal_id, order_id) ON unwind.removals",
    "SELECT (draft_id, order_id) ON unwind.drafts",
)

_KNOWN = ", ".join(f"'{name}'" for name in PUBLIC_TASKS)

_ID_AS_TEXT = r'(?<!\\\\)"(order_id|lot_id|removal_id|bind_id)": "(0|[1-9][0-9]{0,18})"'

SUBMIT_COMMAND = f"""
CREATE OR REPLACE FUNCTION unwind.submit_command(name text, payload jsonb, request_id text DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    chosen text := coalesce(submit_command.request_id, submit_command.payload ->> 'request_id', gen_random_uuid()::text);
    about text := coalesce(submit_command.payload ->> 'order_id', '');
    of_order bigint;
    held unwind.submissions%ROWTYPE;
    inserted bigint;
BEGIN
    IF submit_command.name IS NULL OR submit_command.name NOT IN ({_KNOWN}) THEN
        RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', 'TASK_UNKNOWN');
    END IF;
    IF submit_command.payload IS NULL OR jsonb_typeof(submit_command.payload) <> 'object'
       OR coalesce(submit_command.payload ->> 'request_id', chosen) <> chosen THEN
        RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', 'PAYLOAD_INVALID');
    END IF;
    IF octet_length(submit_command.payload::text) > {PAYLOAD_BYTES} THEN
        RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', 'PAYLOAD_TOO_LARGE');
    END IF;
    IF chosen !~ '^[A-Za-z0-9._:-]{{1,128}}$' THEN
        RETURN jsonb_build_object('request_id', null, 'accepted', false, 'code', 'REQUEST_ID_INVALID');
    END IF;
    -- An id may be written as text (JavaScript rounds numbers above 2^53): the number is kept, so both are the same command.
    -- Within a string jsonb writes each quote with a backslash, so nothing but a field of that name is found.
    submit_command.payload := regexp_replace(submit_command.payload::text, E'{_ID_AS_TEXT}', E'"\\\\1": \\\\2', 'g')::jsonb;
    -- First in, first out per order: removal requests and drafts belong to an order too.
    IF about ~ '^[0-9]{{1,18}}$' THEN
        of_order := about::bigint;
    ELSIF submit_command.payload ->> 'removal_id' ~ '^[0-9]{{1,18}}$' THEN
        SELECT r.order_id INTO of_order FROM unwind.removals AS r
        WHERE r.removal_id = (submit_command.payload ->> 'removal_id')::bigint;
    ELSIF submit_command.payload ? 'draft_id' THEN
        SELECT d.order_id INTO of_order FROM unwind.drafts AS d WHERE d.draft_id = submit_command.payload ->> 'draft_id';
    END IF;
    INSERT INTO unwind.submissions (request_id, task, payload, order_id, submitted_by, submitted_at, state, due_at)
    VALUES (chosen, submit_command.name, submit_command.payload, of_order, session_user, clock_timestamp(), 'waiting',
            clock_timestamp())
    ON CONFLICT ON CONSTRAINT uq_submissions_request_id DO NOTHING RETURNING submission_id INTO inserted;
    IF inserted IS NULL THEN
        SELECT * INTO held FROM unwind.submissions AS s WHERE s.request_id = chosen;
        IF held.task <> submit_command.name
           OR held.payload - 'request_id' <> submit_command.payload - 'request_id' THEN
            RETURN jsonb_build_object('request_id', chosen, 'accepted', false, 'code', 'REQUEST_ID_REUSED');
        END IF;
    ELSE
        PERFORM pg_notify('{CHANNEL}', '');
    END IF;
    RETURN jsonb_build_object('request_id', chosen, 'accepted', true, 'code', null);
END
$body$
"""  # noqa: S608 - built from constants of this module

COMMAND_ANSWERS = """
CREATE OR REPLACE VIEW unwind.command_answers WITH (security_barrier = true) AS
SELECT s.request_id, s.task, s.order_id, s.state, s.answer ->> 'outcome' AS outcome, s.answer ->> 'code' AS code, s.answer,
       s.submitted_at, s.answered_at
FROM unwind.submissions AS s
UNION ALL
SELECT r.request_id, r.task, r.order_id, 'answered', r.outcome, r.answer ->> 'code', r.answer, NULL, r.answered_at
FROM unwind.requests AS r
WHERE NOT EXISTS (SELECT FROM unwind.submissions AS s WHERE s.request_id = r.request_id)
"""

GUARDS: tuple[str, ...] = (
    SUBMIT_COMMAND,
    f"REVOKE ALL ON FUNCTION {SUBMIT_COMMAND_SIGNATURE} FROM PUBLIC",
    COMMAND_ANSWERS,
)
