"""How are commands taken that came in by SQL?  In sets: one lease, one transaction per kind of command, one note of answers.

The answer of a command is kept by the transaction of its effect (its request row), so a drain that dies in between is simply
done again and finds the same answers.  A set that fails is done one by one, so that one bad command stops no other (P8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from celery import current_app, shared_task

from models import dead_jobs, session, submissions
from models.requests import Answer
from models.submissions import Submission
from models.work import at_once
from tasks.command import Command, understood
from workers.failures import described, is_database_trouble
from workers.job import command_of

log = structlog.get_logger(__name__)

SET_SIZE = 100
MOST_SETS = 1000


@shared_task(name="submissions.drain")
def drain() -> dict[str, Any]:
    """Take what was submitted by SQL until nothing is due."""
    total = 0
    answers: list[tuple[Submission, Answer]] = []
    for _ in range(MOST_SETS):
        claimed = _next_set(answers)
        answers = []
        if not claimed:
            break
        total += len(claimed)
        for task in dict.fromkeys(s.task for s in claimed):
            answers += _take_set(task, [s for s in claimed if s.task == task])
    _note(answers)
    return {"taken": total}


def _next_set(answers: Sequence[tuple[Submission, Answer]]) -> list[Submission]:
    """Note the answers of the set before and lease the next one, in one commit.

    A drain that dies before this commit has answered all the same: its commands come round again and find their answers.
    """
    database = session.bound()
    with database.transaction() as conn:
        now = database.clock.now(conn)
        if answers:
            submissions.answered(conn, answers, now)
        return submissions.claim(conn, now, limit=SET_SIZE)


def _take_set(task: str, claimed: Sequence[Submission]) -> list[tuple[Submission, Answer]]:
    """Carry out commands of one kind about different orders; gives their answers, apart from those that are put off."""
    try:
        return _answers(task, claimed)
    except Exception as error:
        if is_database_trouble(error):
            raise  # the lease runs out, and everything is done again
        if len(claimed) > 1:
            return [answer for one in claimed for answer in _take_set(task, [one])]
        _put_off(claimed[0], error)
        return []


def _answers(task: str, claimed: Sequence[Submission]) -> list[tuple[Submission, Answer]]:
    model = command_of(current_app.tasks[task])
    assert model is not None
    answers: list[tuple[Submission, Answer]] = []
    commands: list[tuple[Submission, Command]] = []
    for one in claimed:
        command = understood(model, one.payload | {"request_id": one.request_id}, one.request_id)
        if isinstance(command, Answer):
            answers.append((one, command))
        else:
            command.accept(one.submitted_at)
            commands.append((one, command))
    if commands:
        found: list[Answer] = at_once(lambda: current_app.tasks[task].run([command for _, command in commands]))
        answers += [(one, answer) for (one, _), answer in zip(commands, found, strict=True)]
    return answers


def _note(answers: Sequence[tuple[Submission, Answer]]) -> None:
    """The answers of a last set after which there is no next one."""
    if not answers:
        return
    database = session.bound()
    with database.transaction() as conn:
        submissions.answered(conn, answers, database.clock.now(conn))


def _put_off(one: Submission, error: Exception) -> None:
    log.error("a submitted command failed", request=one.request_id, error=described(error), attempt=one.attempts)
    database = session.bound()
    with database.transaction() as conn:
        now = database.clock.now(conn)
        if first := submissions.failed(conn, one, described(error), now):
            dead_jobs.park(
                conn,
                task=one.task,
                arguments=one.payload | {"request_id": one.request_id},
                error=described(error),
                first_error=first,
                attempts=one.attempts,
                now=now,
                message_id=one.request_id,
            )
