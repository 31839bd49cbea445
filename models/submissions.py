"""The SQL interface: commands submitted by `unwind.submit_command`, beside the message interface of the broker.

`SELECT unwind.submit_command(name, payload, request_id)` inserts a row in the caller's transaction, so it works while
Redis is down.  Workers execute submissions in batches; commands about one order are executed in the order of
submission.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Index, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt, BigIntKey, check_in, is_any
from models.payloads import MAX_BYTES, MAX_DEPTH, MAX_PARTS
from models.sql import load_sql
from models.stored_answers import Answer, answer_from_row, mark_replayed

CHANNEL = "unwind_submissions"
"""The NOTIFY channel that wakes the consumer after a commit with a submission."""
ANSWER_CHANNEL = "unwind_answers"
"""The NOTIFY channel that wakes those who wait for an answer: one notification for each batch of answers."""
LEASE_DURATION = timedelta(seconds=5)
"""How long a consumer that died holds its batch: work must resume within 30 s after a fault, even after two in a row.
A live consumer extends its lease (`workers.submissions.consumer`)."""
MAX_RETRY_DELAY = timedelta(minutes=15)
MAX_ATTEMPTS = 10
MAX_BATCHED_BYTES = 64 * 2**10
"""Payloads up to this size are claimed in batches; a longer one is claimed alone, which bounds the bytes of a claim."""
_IN_BATCHES = f"(attempts = 0 AND octet_length(payload) <= {MAX_BATCHED_BYTES})"


class CommandRow(Base):
    """A command that the SQL interface takes. `./run migrate` adds rows, and none is ever removed.

    A table, so that a new command changes no function, and a mistyped name is refused in its caller's transaction.
    """

    __tablename__ = "commands"

    name: Mapped[str] = mapped_column(primary_key=True)


class SubmissionRow(Base):
    __tablename__ = "submissions"
    __table_args__ = (
        check_in("state", ("waiting", "answered", "dead")),
        # In claim order, so that a batch of a hundred reads a hundred rows however many wait.
        Index(
            "ix_submissions_due",
            "submission_id",
            "due_at",
            postgresql_where=text(f"state = 'waiting' AND {_IN_BATCHES}"),
        ),
        Index(
            "ix_submissions_alone",
            "submission_id",
            "due_at",
            postgresql_where=text(f"state = 'waiting' AND NOT {_IN_BATCHES}"),
        ),
        Index("ix_submissions_answered", "answered_at", postgresql_where=text("state = 'answered'")),
        Index("ix_submissions_order", "order_id", "submission_id", postgresql_where=text("state = 'waiting'")),
    )

    submission_id: Mapped[BigIntKey]
    request_id: Mapped[str] = mapped_column(unique=True)
    task: Mapped[str]
    payload: Mapped[str]
    order_id: Mapped[BigInt | None]
    submitted_by: Mapped[str]
    submitted_at: Mapped[datetime]
    state: Mapped[str]
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(server_default="0")
    answer: Mapped[dict[str, Any] | None]
    answered_at: Mapped[datetime | None]
    first_error: Mapped[str | None]
    last_error: Mapped[str | None]


def add_commands(conn: Connection, names: Iterable[str]) -> None:
    for name in sorted(names):
        conn.execute(insert(CommandRow).values(name=name).on_conflict_do_nothing())


def missing_commands(conn: Connection, names: Iterable[str]) -> list[str]:
    return sorted(set(names) - set(conn.execute(select(CommandRow.name)).scalars()))


@dataclass(frozen=True, slots=True)
class Submission:
    submission_id: int
    request_id: str
    task: str
    payload: str
    submitted_at: datetime
    attempts: int
    first_error: str | None


def claim_submissions(conn: Connection, now: datetime, *, limit: int) -> tuple[list[Submission], Submission | None]:
    """Lease due commands: a batch of small ones that were never tried, and one that is executed alone.

    Long commands and those whose last attempt failed or did not end are executed alone, so that a command that kills
    its worker affects no other.  Only the first waiting command of each order is claimed.  The lease counts the
    attempt.  Paused commands stay, and later commands about the same order wait behind them.
    """
    rows = conn.execute(_CLAIM_SUBMISSIONS, {"now": now, "again": now + LEASE_DURATION, "limit": limit})
    claimed = sorted(
        (
            (
                r.alone,
                Submission(r.submission_id, r.request_id, r.task, r.payload, r.submitted_at, r.attempts, r.first_error),
            )
            for r in rows
        ),
        key=lambda row: row[1].submission_id,
    )
    return [s for runs_alone, s in claimed if not runs_alone], next(
        (s for runs_alone, s in claimed if runs_alone), None
    )


_CLAIM_SUBMISSIONS = text(load_sql("claim_submissions"))


def extend_lease(conn: Connection, submission_ids: Sequence[int], now: datetime) -> None:
    until = now + LEASE_DURATION
    leased = (is_any(SubmissionRow.submission_id, submission_ids), SubmissionRow.state == "waiting")
    conn.execute(update(SubmissionRow).where(*leased, SubmissionRow.due_at < until).values(due_at=until))


def store_answers(conn: Connection, answers: Sequence[tuple[Submission, Answer]], now: datetime) -> None:
    conn.execute(
        _STORE_ANSWERS,
        {
            "ids": [s.submission_id for s, _ in answers],
            "answers": [json.dumps(a.as_json()) for _, a in answers],
            "now": now,
            "channel": ANSWER_CHANNEL,
        },
    )


_STORE_ANSWERS = text(
    """
    WITH stored AS (
        UPDATE unwind.submissions AS s SET state = 'answered', answer = CAST(v.answer AS jsonb), answered_at = :now
        FROM unnest(CAST(:ids AS bigint[]), CAST(:answers AS text[])) AS v(id, answer)
        WHERE s.submission_id = v.id AND s.state <> 'answered'
    )
    SELECT pg_notify(:channel, '')
    """
)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """What `submit_command` said, and the answer if the command had one already."""

    request_id: str | None
    code: str | None
    answer: dict[str, Any] | None = None


def submit_commands(conn: Connection, commands: Sequence[tuple[str, str, str]]) -> list[SubmitResult]:
    """Submit commands, each a name, a payload and a request id, and return their results in the same order."""
    tasks, payloads, request_ids = zip(*commands, strict=True)
    answers = load_answers(conn, request_ids)
    values = {"tasks": list(tasks), "payloads": list(payloads), "ids": list(request_ids)}
    answers = {request_id: _replayed(answer) for request_id, answer in answers.items()}
    said = [row.said for row in conn.execute(_SUBMIT, values)]
    return [SubmitResult(s["request_id"], s["code"], answers.get(s["request_id"])) for s in said]


def _replayed(answer: dict[str, Any]) -> dict[str, Any]:
    kept = answer["outcome"] in ("done", "refused")
    return mark_replayed(answer_from_row(answer)).as_json() if kept else answer


# In order of request id, so that two sets with common ids wait for each other instead of blocking each other.
_SUBMIT = text(
    """
    SELECT s.said FROM (
        SELECT c.n, unwind.submit_command(c.task, c.payload, c.id) AS said
        FROM (SELECT * FROM unnest(CAST(:tasks AS text[]), CAST(:payloads AS text[]), CAST(:ids AS text[]))
              WITH ORDINALITY AS u (task, payload, id, n) ORDER BY u.id, u.n) AS c
    ) AS s ORDER BY s.n
    """
)


def load_answers(conn: Connection, request_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the answers that are stored for these request ids, whichever interface the commands came through."""
    return {row.request_id: row.answer for row in conn.execute(_LOAD_ANSWERS, {"ids": list(request_ids)})}


_LOAD_ANSWERS = text(
    "SELECT request_id, answer FROM unwind.command_answers "
    "WHERE request_id = ANY(CAST(:ids AS text[])) AND state = 'answered'"
)


def record_submission_failure(conn: Connection, submission: Submission, error: str, now: datetime) -> str | None:
    """Postpone a failed command with backoff; return its first error if it has used up its attempts and is now dead."""
    dead = submission.attempts >= MAX_ATTEMPTS
    wait = min(MAX_RETRY_DELAY.total_seconds(), 2.0**submission.attempts)
    first: str | None = conn.execute(
        update(SubmissionRow)
        .where(SubmissionRow.submission_id == submission.submission_id, SubmissionRow.state != "answered")
        .values(
            state="dead" if dead else "waiting",
            due_at=now + timedelta(seconds=wait),
            first_error=func.coalesce(SubmissionRow.first_error, error[:2000]),
            last_error=error[:2000],
        )
        .returning(SubmissionRow.first_error)
    ).scalar_one_or_none()
    return first if dead else None


def mark_submission_dead(conn: Connection, submission: Submission, error: str) -> None:
    conn.execute(
        update(SubmissionRow)
        .where(SubmissionRow.submission_id == submission.submission_id, SubmissionRow.state == "waiting")
        .values(state="dead", first_error=func.coalesce(SubmissionRow.first_error, error), last_error=error)
    )


def requeue_submission(
    conn: Connection, task: str, arguments: Mapping[str, Any], request_id: str, now: datetime
) -> bool:
    """Make a dead command due again, or submit it; return false if the SQL interface cannot take it.

    It is a row in the transaction that takes the command from the dead jobs, so it does not depend on the broker.
    """
    requeued = conn.execute(
        update(SubmissionRow)
        .where(SubmissionRow.request_id == request_id, SubmissionRow.state == "dead", SubmissionRow.task == task)
        .values(state="waiting", attempts=0, due_at=now, first_error=None, last_error=None)
    )
    if requeued.rowcount:
        return True
    answer = conn.execute(
        text("SELECT unwind.submit_command(:task, CAST(:payload AS text), :request_id)"),
        {"task": task, "payload": json.dumps(dict(arguments) | {"request_id": request_id}), "request_id": request_id},
    ).scalar_one()
    return bool(answer["accepted"])


def oldest_waiting(conn: Connection) -> datetime | None:
    waiting = select(func.min(SubmissionRow.submitted_at)).where(SubmissionRow.state == "waiting")
    return conn.execute(waiting).scalar()


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
    -- Nothing is parsed before its length and the number of its parts are known (as in models/payloads.py).
    IF octet_length(submit_command.payload) > {MAX_BYTES} THEN
        fault := 'PAYLOAD_TOO_LARGE';
    ELSIF octet_length(submit_command.payload) > {MAX_PARTS}
          AND {_PUNCTUATION_COUNT.format("submit_command.payload")} > {MAX_PARTS} THEN
        bare := {_PAYLOAD_WITHOUT_ESCAPES};
        IF octet_length(bare) - octet_length(replace(bare, '"', '')) > 4 * ({MAX_PARTS} + 1) THEN
            fault := 'PAYLOAD_TOO_LARGE';
        ELSIF (SELECT sum({_PUNCTUATION_COUNT.format("s.piece")})
               FROM unnest(string_to_array(bare, '"')) WITH ORDINALITY AS s(piece, number) WHERE s.number % 2 = 1)
              > {MAX_PARTS} THEN
            fault := 'PAYLOAD_TOO_LARGE';
        END IF;
        bare := NULL;
    END IF;
    IF fault IS NULL THEN
        BEGIN
            document := submit_command.payload::jsonb;
            IF document IS NULL OR jsonb_typeof(document) <> 'object' THEN
                fault := 'PAYLOAD_INVALID';
            ELSIF jsonb_path_exists(document, 'strict $.**{{{MAX_DEPTH}}}') THEN
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
    IF pg_column_size(submit_command.payload) > {MAX_BYTES} THEN
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

COMMAND_ANSWERS = """
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
    COMMAND_ANSWERS,
)
