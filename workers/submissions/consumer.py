"""The task that executes commands submitted through the SQL interface, in batches.

A batch is one lease, one transaction per kind of command, and one insert of answers.  The transaction of a command's
effects also inserts its request row, so a run that dies in between is repeated and finds the same answers.  A batch
that fails is repeated command by command, so that one bad command stops no other.  Payloads are text, parsed one by one
after their lease is committed: one that cannot be parsed is answered `invalid`, and one that kills its worker was
counted before, runs alone from then on, and is parked after `MAX_SUBMISSION_ATTEMPTS`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import structlog
from celery import current_app, shared_task

from models import dead_jobs, submissions
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.db.database import is_database_unavailable
from models.db.pipeline import pipeline
from models.payload_limits import InvalidPayload, parse_payload
from models.stored_answers import Answer
from models.submissions import MAX_SUBMISSION_ATTEMPTS, Submission
from tasks.command import Command
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from workers.errors import SanitizedError, summarize_error

log = structlog.get_logger(__name__)

BATCH_SIZE = 100
MAX_RUN_SECONDS = 5.0
"""After which a run ends, so that other queues get their turn, and wakes the next one."""
LEASE_RENEWAL_INTERVAL = submissions.SUBMISSION_LEASE_DURATION.total_seconds() / 3

Answers = list[tuple[Submission, Answer]]


@shared_task(name="submissions.drain")
def drain_submissions() -> dict[str, Any]:
    """Execute submitted commands until none is due; return how many were taken."""
    total = 0
    answers: Answers = []
    deadline = monotonic() + MAX_RUN_SECONDS
    with _renewed_submission_leases() as leased_ids:
        while monotonic() < deadline:
            batch, single = _take_next_consumer_batch(answers)
            answers = []
            if not batch and single is None:
                break
            leased_ids.update(submission.submission_id for submission in (*batch, *([single] if single else [])))
            for task in dict.fromkeys(submission.task for submission in batch):
                answers += _execute_submitted_batch(
                    task, [submission for submission in batch if submission.task == task]
                )
            total += len(batch)
            if single is not None:
                _store_submission_answers(answers)  # before a command that may kill its worker
                answers = _execute_submitted_batch(single.task, [single])
                total += 1
            leased_ids.clear()
        else:
            db.current_database().wake_at_once(drain_submissions.name)
        _store_submission_answers(answers)
    return {"taken": total}


def _take_next_consumer_batch(answers: Answers) -> tuple[list[Submission], Submission | None]:
    # Store the answers of the previous batch and lease the next one in one commit; return the batch and a command to
    # run alone. Dying before this commit loses no answer: the commands become due again and find their request rows.
    database = db.current_database()
    with database.transaction(by_keys=True) as conn:
        with pipeline(conn):
            if all(answer.outcome in ("done", "refused") for _, answer in answers):
                db.commit_without_flush(conn)  # what a crash undoes is done again, and finds the request rows
            fetch_now = database.clock.send_now(conn)
        now = fetch_now()
        with pipeline(conn):
            if answers:
                submissions.store_submission_answers(conn, answers, now)
            fetch_claimed = submissions.send_submissions_claim(conn, now, limit=BATCH_SIZE)
        batch, single = fetch_claimed()
        if single is None or single.attempts <= MAX_SUBMISSION_ATTEMPTS:
            return batch, single
        _record_failure(conn, single, dead_jobs.DEAD_JOB_REASONS["WORKER_DIED"], now, reason="WORKER_DIED")
    log.error("submission_parked", request=single.request_id, reason="WORKER_DIED")
    return batch, None


def _record_failure(conn: Any, submission: Submission, error: str, now: datetime, reason: str = "FAILED") -> None:
    # Record a failed attempt; park the command after its last one. If its worker died at every attempt, its payload may
    # be what kills the worker: it stays unread in its row, from which a requeue takes it.
    first_error = submissions.record_submission_failure(conn, submission, error, now)
    if first_error:
        arguments = parse_payload(submission.payload) if reason == "FAILED" else {}
        dead_jobs.park_job(
            conn,
            task=submission.task,
            arguments=arguments | {"request_id": submission.request_id},
            error=error,
            first_error=first_error,
            reason=reason,
            attempts=MAX_SUBMISSION_ATTEMPTS,
            now=now,
            message_id=submission.request_id,
        )


@contextlib.contextmanager
def _renewed_submission_leases() -> Iterator[set[int]]:
    # Extend the leases of the submission ids in the returned set for as long as this process lives. A thread does it on
    # its own connection, since the task's is in use. Most batches are done before it opens one.
    leased_ids: set[int] = set()
    ended = threading.Event()
    thread = threading.Thread(
        target=_renew_submission_leases, args=(db.current_database(), leased_ids, ended), name="leases", daemon=True
    )
    thread.start()
    try:
        yield leased_ids
    finally:
        ended.set()
        thread.join(1.0)


def _renew_submission_leases(task_database: db.Database, leased_ids: set[int], ended: threading.Event) -> None:
    database: db.Database | None = None
    while not ended.wait(LEASE_RENEWAL_INTERVAL):
        if not (ids := sorted(leased_ids.copy())):
            continue
        try:
            database = database or db.connect(task_database.address, clock=task_database.clock)
            with database.transaction() as conn:
                submissions.extend_submission_leases(conn, ids, database.clock.now(conn))
        except Exception as error:  # noqa: BLE001 - another run may then repeat the batch, and finds its answers
            log.warning("lease_renewal_failed", error=summarize_error(error))
    if database is not None:
        database.dispose()


def _execute_submitted_batch(task: str, batch: Sequence[Submission]) -> Answers:
    # Execute commands of one kind about different orders; return their answers, without those that will be retried.
    try:
        return _execute_submissions(task, batch)
    except Exception as error:
        if is_database_unavailable(error):
            raise  # the lease expires, and the batch is repeated
        if len(batch) > 1:
            return [answer for submission in batch for answer in _execute_submitted_batch(task, [submission])]
        submission, problem = batch[0], summarize_error(error)
        log.error("submission_failed", request=submission.request_id, error=problem, attempt=submission.attempts)
        database = db.current_database()
        with database.transaction() as conn:
            _record_failure(conn, submission, problem, database.clock.now(conn))
        return []


def _execute_submissions(task: str, batch: Sequence[Submission]) -> Answers:
    if task not in COMMANDS:
        raise SanitizedError(
            f"this worker is older than the command {task}; replace it with one of the release that ran ./run migrate"
        )
    answers: Answers = []
    commands: list[tuple[Submission, Command]] = []
    for submission in batch:
        command = _parse_submission(submission)
        if isinstance(command, Answer):
            answers.append((submission, command))
        else:
            command.accept(submission.submitted_at)
            commands.append((submission, command))
    if commands:
        results: list[Answer] = retry_on_conflict(
            lambda: current_app.tasks[task].run([command for _, command in commands])
        )
        answers += [(submission, answer) for (submission, _), answer in zip(commands, results, strict=True)]
    return answers


def _parse_submission(submission: Submission) -> Command | Answer:
    request_id = submission.request_id
    try:
        arguments = parse_payload(submission.payload) | {"request_id": request_id}
    except InvalidPayload as problem:
        return Answer.invalid(request_id, [("payload", str(problem))])
    return parse_command(COMMANDS[submission.task].model, arguments, request_id)


def _store_submission_answers(answers: Answers) -> None:
    if not answers:
        return
    database = db.current_database()
    with database.transaction() as conn:
        submissions.store_submission_answers(conn, answers, database.clock.now(conn))
