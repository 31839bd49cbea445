"""How is a message turned into an answer, and how hard do we try?

Every task of the house runs as a `Job`: arguments are validated into a command (`invalid` otherwise), the task works on a set
of one, clashes with others are tried again at once, trouble with the database is retried with back-off, and what is used up
is parked in `dead_jobs` where ops see it and can replay it.  Nothing is dropped.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import structlog
from celery import Task
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError as PoolTimeout

from models import dead_jobs, session
from models.requests import Answer
from models.work import at_once
from tasks.command import Command, understood

log = structlog.get_logger(__name__)

MOST_RETRIES = 8
"""For a failure nobody expected: with the waits below the job is parked after about two minutes."""
LONGEST_WAIT = 30.0
"""Seconds.  Far below half the visibility timeout, past which a waiting message is delivered twice (reliability F06)."""


class Job(Task):  # type: ignore[misc]  # Celery ships no types
    """Base class of all tasks: see the module."""

    abstract = True
    typing = False  # a missing argument is the caller's mistake and gets an answer, not a TypeError
    max_retries = None
    resultrepr_maxsize = 128

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a worker calls with the arguments of a message."""
        message_id = self.request.id or "local"
        with structlog.contextvars.bound_contextvars(
            task=self.name,
            message=message_id,
            order=_plain(kwargs.get("order_id")),
            request=_plain(kwargs.get("request_id")),
        ):
            try:
                answer = carry_out(self, kwargs, message_id, positional=len(args))
            except Exception as error:
                self._again_or_park(kwargs, error)
                raise
            log.info("answered", outcome=answer["outcome"], code=answer["code"])
            return answer

    def _again_or_park(self, kwargs: dict[str, Any], error: Exception) -> None:
        retries = self.request.retries
        wait = min(LONGEST_WAIT, 0.5 * 2**retries) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if is_database_trouble(error):
            # Parking needs the database too, so this waits for it however long it takes; the message stays in the broker.
            log.warning("database trouble, trying again", error=type(error).__name__, wait=round(wait, 1))
            raise self.retry(exc=error, countdown=wait)
        if retries < MOST_RETRIES:
            log.warning("failed, trying again", error=type(error).__name__, attempt=retries + 1, exc_info=True)
            raise self.retry(exc=error, countdown=wait)
        log.error("failed for good, parked", error=type(error).__name__, attempts=retries + 1, exc_info=True)
        with session.bound().transaction() as conn:
            dead_jobs.park(
                conn,
                task=self.name,
                message_id=self.request.id,
                arguments=kwargs,
                error=f"{type(error).__name__}: {error}",
                attempts=retries + 1,
                now=session.bound().clock.now(conn),
            )


def carry_out(task: Any, arguments: Mapping[str, Any], message_id: str, *, positional: int = 0) -> dict[str, Any]:
    """Validate, run, answer.  Raises only for bugs and broken infrastructure; `task` is a registered task object."""
    model = command_of(task)
    if model is None:
        effects = at_once(lambda: task.run(**arguments))
        return Answer("done", message_id, "Done.", effects=effects).as_json()
    command = understood(model, arguments, message_id, positional=positional)
    if isinstance(command, Answer):
        return command.as_json()
    answers: list[Answer] = at_once(lambda: task.run([command]))
    return answers[0].as_json()


@lru_cache(maxsize=256)
def command_of(task: Any) -> type[Command] | None:
    """The argument model of a public task, read from its signature; None for a task of the house."""
    hints = typing.get_type_hints(task.run)
    if "commands" not in hints:
        return None
    model: type[Command] = typing.get_args(hints["commands"])[0]
    return model


def is_database_trouble(error: BaseException) -> bool:
    """The database or the way to it, not the job, is what failed: nothing was decided, so trying again is always right."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout)


def _plain(value: Any) -> Any:
    """Only what is surely an id goes into a log line."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) and len(value) <= 128 and value.isprintable() else None
