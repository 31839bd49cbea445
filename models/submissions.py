"""The SQL interface: commands submitted by `unwind.submit_command`, alongside the broker's message interface.

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

from sqlalchemy import Connection, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import array_rows, int_array, is_any, text_array
from models.db.pipeline import Fetch, execute, pipeline
from models.db.schema import Base, BigInt, BigIntKey, Timestamp, check_in, partial_index
from models.db.selects import earliest
from models.sql import load_sql
from models.stored_answers import Answer, mark_replayed

CHANNEL = "unwind_submissions"
"""The NOTIFY channel that wakes the consumer after a commit with a submission."""
ANSWER_CHANNEL = "unwind_answers"
"""The NOTIFY channel that wakes those who wait for an answer: one notification for each batch of answers."""
SUBMISSION_LEASE_DURATION = timedelta(seconds=5)
"""How long a consumer that died holds its batch: work must resume within 30 s after a fault, even after two in a row.
A live consumer extends its lease (`workers.submissions.consumer`)."""
MAX_SUBMISSION_RETRY_DELAY = timedelta(minutes=15)
MAX_SUBMISSION_ATTEMPTS = 10
MAX_BATCHED_SUBMISSION_BYTES = 64 * 2**10
"""Payloads up to this size are claimed in batches; a longer one is claimed alone, which bounds the bytes of a claim."""
_IN_BATCHES = f"(attempts = 0 AND octet_length(payload) <= {MAX_BATCHED_SUBMISSION_BYTES})"


class SubmittableCommandRow(Base):
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
        partial_index("ix_submissions_due", "submission_id", "due_at", where=f"state = 'waiting' AND {_IN_BATCHES}"),
        partial_index(
            "ix_submissions_alone", "submission_id", "due_at", where=f"state = 'waiting' AND NOT {_IN_BATCHES}"
        ),
        partial_index("ix_submissions_answered", "answered_at", where="state = 'answered'"),
        partial_index("ix_submissions_order", "order_id", "submission_id", where="state = 'waiting'"),
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
        conn.execute(insert(SubmittableCommandRow).values(name=name).on_conflict_do_nothing())


def missing_commands(conn: Connection, names: Iterable[str]) -> list[str]:
    return sorted(set(names) - set(conn.execute(select(SubmittableCommandRow.name)).scalars()))


Submission = Any
"""A claimed row, with the columns that `_CLAIM_SUBMISSIONS` returns."""


def send_submissions_claim(
    conn: Connection, now: datetime, *, limit: int
) -> Fetch[tuple[list[Submission], Submission | None]]:
    """Lease due commands: a batch of small ones that were never tried, and one that is executed alone.

    Long commands and those whose last attempt failed or did not end are executed alone, so that a command that kills
    its worker affects no other.  Only the first waiting command of each order is claimed.  The lease counts the
    attempt.  Paused commands stay, and later commands about the same order wait behind them.
    """
    rows = execute(conn, _CLAIM_SUBMISSIONS, {"now": now, "again": now + SUBMISSION_LEASE_DURATION, "limit": limit})

    def read() -> tuple[list[Submission], Submission | None]:
        claimed = sorted(rows, key=lambda row: row.submission_id)
        return [row for row in claimed if not row.alone], next((row for row in claimed if row.alone), None)

    return read


_CLAIM_SUBMISSIONS = text(load_sql("claim_submissions"))


def extend_submission_leases(conn: Connection, submission_ids: Sequence[int], now: datetime) -> None:
    until = now + SUBMISSION_LEASE_DURATION
    leased = (is_any(SubmissionRow.submission_id, submission_ids), SubmissionRow.state == "waiting")
    conn.execute(update(SubmissionRow).where(*leased, SubmissionRow.due_at < until).values(due_at=until))


def store_submission_answers(conn: Connection, answers: Sequence[tuple[Submission, Answer]], now: datetime) -> None:
    values = {
        "ids": int_array([s.submission_id for s, _ in answers]),
        "answers": text_array([json.dumps(a.as_json()) for _, a in answers]),
        "now": now,
    }
    execute(conn, _STORE_SUBMISSION_ANSWERS, values)


_NEW_ANSWERS = array_rows(ids=SubmissionRow.submission_id, answers=SubmissionRow.answer).c
_STORED_ANSWERS = (
    update(SubmissionRow)
    .where(SubmissionRow.submission_id == _NEW_ANSWERS.ids, SubmissionRow.state != "answered")
    .values(state="answered", answer=_NEW_ANSWERS.answers, answered_at=bindparam("now", type_=Timestamp))
)
_STORE_SUBMISSION_ANSWERS = select(func.pg_notify(ANSWER_CHANNEL, "")).add_cte(_STORED_ANSWERS.cte("stored"))


@dataclass(frozen=True, slots=True)
class SubmissionReceipt:
    request_id: str | None
    code: str | None
    answer: dict[str, Any] | None = None


def submit_commands(conn: Connection, commands: Sequence[tuple[str, str, str]]) -> list[SubmissionReceipt]:
    """Submit commands, each a name, a payload and a request id, and return their results in the same order."""
    tasks, payloads, request_ids = zip(*commands, strict=True)
    values = {"tasks": text_array(tasks), "payloads": text_array(payloads), "ids": text_array(request_ids)}
    with pipeline(conn):
        fetch_answers = send_submission_answers_query(conn, request_ids)
        submitted = execute(conn, _SUBMIT_COMMANDS, values)
    answers = {
        request_id: mark_replayed(Answer(**answer)).as_json() if answer["outcome"] in ("done", "refused") else answer
        for request_id, answer in fetch_answers().items()
    }
    receipts = [row.receipt for row in submitted]
    return [SubmissionReceipt(s["request_id"], s["code"], answers.get(s["request_id"])) for s in receipts]


# In order of request id, so that two batches with common ids wait for each other instead of blocking each other.
_SUBMIT_COMMANDS = text("""
    SELECT s.receipt FROM (
        SELECT c.n, unwind.submit_command(c.task, c.payload, c.id) AS receipt
        FROM (SELECT * FROM unnest(CAST(:tasks AS text[]), CAST(:payloads AS text[]), CAST(:ids AS text[]))
              WITH ORDINALITY AS u (task, payload, id, n) ORDER BY u.id, u.n) AS c
    ) AS s ORDER BY s.n
""")


def send_submission_answers_query(conn: Connection, request_ids: Sequence[str]) -> Fetch[dict[str, dict[str, Any]]]:
    rows = execute(conn, _LOAD_SUBMISSION_ANSWERS, {"ids": text_array(request_ids)})
    return lambda: {row.request_id: row.answer for row in rows}


_LOAD_SUBMISSION_ANSWERS = text(
    "SELECT request_id, answer FROM unwind.command_answers"
    " WHERE request_id = ANY(CAST(:ids AS text[])) AND state = 'answered'"
)


def record_submission_failure(conn: Connection, submission: Submission, error: str, now: datetime) -> str | None:
    """Postpone a failed command with backoff; return its first error if it has used up its attempts and is now dead."""
    dead = submission.attempts >= MAX_SUBMISSION_ATTEMPTS
    wait = min(MAX_SUBMISSION_RETRY_DELAY.total_seconds(), 2.0**submission.attempts)
    first: str | None = conn.execute(
        update(SubmissionRow)
        .where(SubmissionRow.submission_id == submission.submission_id, SubmissionRow.state == "waiting")
        .values(
            state="dead" if dead else "waiting",
            due_at=now + timedelta(seconds=wait),
            first_error=func.coalesce(SubmissionRow.first_error, error[:2000]),
            last_error=error[:2000],
        )
        .returning(SubmissionRow.first_error)
    ).scalar_one_or_none()
    return first if dead else None


def resubmit_dead_submission(
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
    payload = json.dumps(dict(arguments) | {"request_id": request_id})
    (receipt,) = submit_commands(conn, [(task, payload, request_id)])
    return receipt.code is None


oldest_waiting_submission = earliest(SubmissionRow.submitted_at, "state = 'waiting'")
