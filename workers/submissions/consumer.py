"""How are commands taken that came in by SQL?  In sets: one lease, one transaction per kind of command, one note of answers.

The answer of a command is kept by the transaction of its effect (its request row), so a drain that dies in between is simply
done again and finds the same answers.  A set that fails is done one by one, so one bad command stops no other (P8).  Payloads are
texts and are read one by one after their lease is committed: one that cannot be read is answered `invalid`, and one that kills
its worker was counted before, is taken alone from then on, and is parked after `MAX_ATTEMPTS`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import structlog
from celery import current_app, shared_task

from models import dead_jobs, submissions
from models.db import database as db
from models.payloads import InvalidPayload, parse_payload
from models.requests import Answer, invalid
from models.submissions import MAX_ATTEMPTS, Submission
from models.unit_of_work import retry_on_conflict
from tasks.command import Command, parse_command
from workers.errors import is_database_unavailable, summarize
from workers.task import command_model

log = structlog.get_logger(__name__)

BATCH_SIZE = 100
MAX_RUN_SECONDS = 5.0
"""After which a drain ends, so that other queues get their turn; the tick that came meanwhile goes on."""
LEASE_RENEWAL_INTERVAL = submissions.LEASE_DURATION.total_seconds() / 3

Answers = list[tuple[Submission, Answer]]


@shared_task(name="submissions.drain")
def drain() -> dict[str, Any]:
    """Take what was submitted by SQL until nothing is due."""
    total = 0
    answers: Answers = []
    until = monotonic() + MAX_RUN_SECONDS
    with _holding() as held:
        while monotonic() < until:
            small, alone = _next_set(answers)
            answers = []
            if not small and alone is None:
                break
            held.update(one.submission_id for one in (*small, *([alone] if alone else [])))
            for task in dict.fromkeys(s.task for s in small):
                answers += _take_set(task, [s for s in small if s.task == task])
            total += len(small)
            if alone is not None:
                _note(answers)  # whatever this one does to its worker, they are answered
                answers = _take_set(alone.task, [alone])
                total += 1
            held.clear()
        _note(answers)
    return {"taken": total}


def _next_set(answers: Answers) -> tuple[list[Submission], Submission | None]:
    """Note the answers of the set before and lease the next one, in one commit.

    A drain that dies before this commit has answered all the same: its commands come round again and find their answers.
    """
    database = db.current_database()
    with database.transaction() as conn:
        now = database.clock.now(conn)
        if answers:
            submissions.store_answers(conn, answers, now)
        small, alone = submissions.claim(conn, now, limit=BATCH_SIZE)
        given_up = alone if alone is not None and alone.attempts > MAX_ATTEMPTS else None
        if given_up is not None:
            _give_up(conn, given_up, now)
    if given_up is None:
        return small, alone
    log.error("a submitted command is given up: its worker died each time", request=given_up.request_id)
    return small, None


def _give_up(conn: Any, one: Submission, now: datetime) -> None:
    """Park a command that was tried as often as may be and whose last try came to no end.

    Its payload may be what ends its worker: it stays where it is, unread, and is taken from there when the job is replayed.
    """
    error = dead_jobs.REASONS["WORKER_DIED"]
    submissions.mark_dead(conn, one, error)
    dead_jobs.park(
        conn,
        task=one.task,
        arguments={"request_id": one.request_id},
        error=error,
        first_error=one.first_error,
        reason="WORKER_DIED",
        attempts=MAX_ATTEMPTS,
        now=now,
        message_id=one.request_id,
    )


@contextlib.contextmanager
def _holding() -> Iterator[set[int]]:
    """Extend the leases of what is in the set that is given, as long as this process lives.

    By a thread with a connection of its own: the task's is at work.  Most sets are done before it opens one.
    """
    held: set[int] = set()
    ended = threading.Event()
    thread = threading.Thread(target=_hold, args=(db.current_database(), held, ended), name="leases", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join(1.0)


def _hold(of_task: db.Database, held: set[int], ended: threading.Event) -> None:
    database: db.Database | None = None
    while not ended.wait(LEASE_RENEWAL_INTERVAL):
        if not (ids := sorted(held.copy())):
            continue
        try:
            database = database or db.open_second_connection(of_task)
            with database.transaction() as conn:
                submissions.extend_lease(conn, ids, database.clock.now(conn))
        except Exception as error:  # noqa: BLE001 - whatever it is, another drain may do the set again and finds its answers
            log.warning("leases could not be extended", error=summarize(error))
    if database is not None:
        database.dispose()


def _take_set(task: str, claimed: Sequence[Submission]) -> Answers:
    """Carry out commands of one kind about different orders; gives their answers, apart from those that are put off."""
    try:
        return _answers(task, claimed)
    except Exception as error:
        if is_database_unavailable(error):
            raise  # the lease runs out, and everything is done again
        if len(claimed) > 1:
            return [answer for one in claimed for answer in _take_set(task, [one])]
        _put_off(claimed[0], error)
        return []


def _answers(task: str, claimed: Sequence[Submission]) -> Answers:
    model = command_model(current_app.tasks[task])
    assert model is not None
    answers: Answers = []
    commands: list[tuple[Submission, Command]] = []
    for one, command in _understood(model, claimed):
        if isinstance(command, Answer):
            answers.append((one, command))
        else:
            command.accept(one.submitted_at)
            commands.append((one, command))
    if commands:
        found: list[Answer] = retry_on_conflict(
            lambda: current_app.tasks[task].run([command for _, command in commands])
        )
        answers += [(one, answer) for (one, _), answer in zip(commands, found, strict=True)]
    return answers


def _understood(model: type[Command], claimed: Iterable[Submission]) -> Iterator[tuple[Submission, Command | Answer]]:
    """Each command or the `invalid` answer to it; one payload is in memory at a time."""
    for one in claimed:
        try:
            arguments = parse_payload(one.payload)
        except InvalidPayload as wrong:
            yield one, invalid(one.request_id, [("payload", str(wrong))])
        else:
            yield one, parse_command(model, arguments | {"request_id": one.request_id}, one.request_id)


def _note(answers: Answers) -> None:
    """Answers that no next claim notes."""
    if not answers:
        return
    database = db.current_database()
    with database.transaction() as conn:
        submissions.store_answers(conn, answers, database.clock.now(conn))


def _put_off(one: Submission, error: Exception) -> None:
    log.error("a submitted command failed", request=one.request_id, error=summarize(error), attempt=one.attempts)
    database = db.current_database()
    with database.transaction() as conn:
        now = database.clock.now(conn)
        if first := submissions.record_failure(conn, one, summarize(error), now):
            dead_jobs.park(
                conn,
                task=one.task,
                arguments=parse_payload(one.payload) | {"request_id": one.request_id},
                error=summarize(error),
                first_error=first,
                attempts=one.attempts,
                now=now,
                message_id=one.request_id,
            )
