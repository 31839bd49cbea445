"""How is a message turned into an answer, and how hard do we try?

Every task of the house runs as a `Job`: arguments are validated into a command (`invalid` otherwise), the task works on
a set of one, and clashes with others are tried again at once.  What then still fails depends on who asked:

- a command is tried again with back-off and in the end parked in `dead_jobs`, where ops see it and can replay it; while it can
  neither be answered nor parked, its message goes back with back-off, however long that takes;
- a follower's rows are tried apart from each other, so that one that cannot be kept stops no other; it is rung again
  by the relay with back-off, and in the end parked too;
- a tick of the timetable is not tried again: the next tick does all its work.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog
from celery import Task

from models import dead_jobs, outbox
from models.db import database as db
from models.requests import Answer, invalid
from models.unit_of_work import retry_on_conflict
from tasks.command import Command, parse_command
from workers.errors import TaskFailed, is_database_unavailable, sanitized, summarize, traceback_path

log = structlog.get_logger(__name__)

MAX_RETRIES = 8
"""For a failure nobody expected: with the waits below the job is parked after about two minutes."""
MAX_CONSUMER_RETRIES = 2
"""While the database is away; after that the row itself comes round again, 10 s after its first ring."""
MAX_WAIT = 30.0
"""Seconds.  Far below half the visibility timeout: past it a waiting message is delivered twice (reliability F06)."""
FIRST_ERROR_HEADER = "first_error"
"""Header of a message that is tried again: what is parked says what it failed of at first, too (promises.md P1)."""
MAX_FIRST_ERROR_LENGTH = 500
UNLIMITED_RETRIES = 1_000_000
"""Parking needs the database too, so a command waits for it however long it takes; its message stays in the broker."""


class BaseTask(Task):
    """Base class of all tasks: see the module."""

    abstract = True
    Request = "workers.redaction:RedactedRequest"
    typing = False  # a missing argument is the caller's mistake and gets an answer, not a TypeError
    max_retries = 3  # of a job whose worker dies with it; then `workers.worker_lost` parks it (reliability F24)
    default_retry_delay = 1
    resultrepr_maxsize = 512  # long enough for `workers.redaction` to find the counts; nobody sees it as it is

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a worker calls with the arguments of a message."""
        message_id = self.request.id or "local"
        facts = {
            "task": self.name,
            "message": message_id,
            "order": _plain(kwargs.get("order_id")),
            "request": _plain(kwargs.get("request_id")),
            "cause": _plain(self.request.parent_id),
        }
        with structlog.contextvars.bound_contextvars(
            **{name: fact for name, fact in facts.items() if fact is not None}
        ):
            try:
                answer = execute(self, kwargs, message_id, positional=len(args))
            except Exception as caught:  # noqa: BLE001 - whatever it is, the job is not lost
                error = caught
            else:
                said = log.info if command_model(self) is not None else log.debug  # a line a tick would hide the others
                said("answered", outcome=answer["outcome"], code=answer["code"])
                return answer
            # Out of the handler, so that what is raised here drags no chain behind it: Celery tells logs, events and the
            # result backend of it with its whole chain, and the error itself may hold private values (P9, F64).
            self._failed(kwargs, error)
            raise sanitized(error)

    def _failed(self, kwargs: dict[str, Any], error: Exception) -> None:
        """Have it tried again (raises Celery's Retry), or return when nothing is owed: it is parked, or comes again by itself.

        `workers.transport.acknowledgement` takes a JobFailed of a command for parked, so nothing else may leave here for a command.
        """
        if command_model(self) is None and ("rows" in kwargs or not kwargs):
            self._comes_again(kwargs.get("rows") or [], error)
        elif is_database_unavailable(error):
            self._again(error, UNLIMITED_RETRIES)
        elif self.request.retries < MAX_RETRIES:
            self._again(error, MAX_RETRIES)
        elif not self._parked(kwargs, error):
            self._again(error, UNLIMITED_RETRIES)

    def _comes_again(self, rows: Sequence[int], error: Exception) -> None:
        """A tick or a follower failed: the timetable and the relay send it again, whatever becomes of this message."""
        if not rows:
            log.error("failed; the next tick does it all", error=summarize(error), path=traceback_path(error))
        elif is_database_unavailable(error):
            if self.request.retries < MAX_CONSUMER_RETRIES:
                self._again(error, MAX_CONSUMER_RETRIES)
            log.warning("database trouble, the rows will be rung for again", error=summarize(error))
        else:
            try:
                bisect_failures(self, rows, error)
            except Exception as worse:  # noqa: BLE001 - its rows are due as they were
                log.warning("the rows will be rung for again", error=summarize(worse), path=traceback_path(worse))

    def _parked(self, kwargs: dict[str, Any], error: Exception) -> bool:
        """Whether it is among the dead jobs now.  If not, nothing is lost yet: the message still is there."""
        try:
            park(
                self.name,
                kwargs,
                summarize(error),
                first_error=self._first_error(),
                attempts=self.request.retries + 1,
                message_id=self.request.id,
            )
        except Exception as worse:  # noqa: BLE001 - whatever keeps it from being parked, the message must not be lost
            log.error("failed for good and cannot be parked now", error=summarize(error), because=summarize(worse))
            return False
        log.error("failed for good, parked", error=summarize(error), path=traceback_path(error))
        return True

    def _again(self, error: Exception, most: int) -> None:
        retries = self.request.retries
        wait = min(MAX_WAIT, 0.5 * 2 ** min(retries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        log.warning("failed, trying again", error=summarize(error), attempt=retries + 1, wait=round(wait, 1))
        headers = {FIRST_ERROR_HEADER: self._first_error() or summarize(error)[:MAX_FIRST_ERROR_LENGTH]}
        raise self.retry(exc=TaskFailed(summarize(error)), countdown=wait, max_retries=most, headers=headers)

    def _first_error(self) -> str | None:
        """What the first try said; it travels with the message, and a stranger may have written it."""
        said = (self.request.headers or {}).get(FIRST_ERROR_HEADER)
        if not isinstance(said, str) or not said.isprintable():
            return None
        return said[:MAX_FIRST_ERROR_LENGTH]


def execute(task: Any, arguments: Mapping[str, Any], message_id: str, *, positional: int = 0) -> dict[str, Any]:
    """Validate, run, answer.  Raises only for bugs and broken infrastructure; `task` is a registered task object."""
    model = command_model(task)
    if model is None:
        wrong = _not_taken(task, arguments, positional)
        if wrong:
            return invalid(message_id, wrong).as_json()
        effects = retry_on_conflict(lambda: task.run(**arguments))
        return Answer("done", message_id, "Done.", effects=effects).as_json()
    command = parse_command(model, arguments, message_id, positional=positional)
    if isinstance(command, Answer):
        return command.as_json()
    answers: list[Answer] = retry_on_conflict(lambda: task.run([command]))
    return answers[0].as_json()


def bisect_failures(task: Any, rows: Sequence[int], error: Exception) -> None:
    """A set of promises failed: try its halves, down to the ones that fail alone, and count those as failed (P8)."""
    if len(rows) > 1:
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            try:
                retry_on_conflict(lambda half=half: task.run(rows=list(half)))  # type: ignore[misc]
            except Exception as worse:  # noqa: BLE001 - whatever it is belongs to the half that raised it
                if is_database_unavailable(worse):
                    raise TaskFailed(summarize(worse)) from None
                bisect_failures(task, half, worse)
        return
    log.error("a promise could not be kept", outbox_id=rows[0], error=summarize(error), path=traceback_path(error))
    database = db.current_database()
    with database.transaction() as conn:
        for outbox_id, first in outbox.record_failure(conn, list(rows), summarize(error)).items():
            dead_jobs.park(
                conn,
                task=task.name,
                arguments={"rows": [outbox_id]},
                error=summarize(error),
                first_error=first,
                attempts=outbox.MAX_ATTEMPTS,
                now=database.clock.now(conn),
                outbox_id=outbox_id,
            )


def park(
    task: str,
    arguments: Mapping[str, Any],
    error: str,
    *,
    first_error: str | None,
    attempts: int,
    message_id: str | None,
) -> None:
    """Keep a job that is given up, in a transaction of its own."""
    database = db.current_database()
    with database.transaction() as conn:
        dead_jobs.park(
            conn,
            task=task,
            message_id=message_id,
            arguments=arguments,
            error=error,
            first_error=first_error,
            attempts=attempts,
            now=database.clock.now(conn),
        )


@lru_cache(maxsize=256)
def command_model(task: Any) -> type[Command] | None:
    """The argument model of a public task, read from its signature; None for a task of the house."""
    hints = typing.get_type_hints(task.run)
    if "commands" not in hints:
        return None
    model: type[Command] = typing.get_args(hints["commands"])[0]
    return model


def _not_taken(task: Any, arguments: Mapping[str, Any], positional: int) -> list[tuple[str, str]]:
    """What a task of the house cannot use of a message: unknown names and values of another kind."""
    takes = {name: hint for name, hint in typing.get_type_hints(task.run).items() if name != "return"}
    wrong = [("args", "only keyword arguments are taken")] if positional else []
    for name, value in arguments.items():
        if name not in takes:
            wrong.append((name[:100], "there is no such argument"))
        elif value is not None and not (_are_rows(value) if name == "rows" else _is_id(value)):
            wrong.append((name, "must be a list of ids" if name == "rows" else "must be an id"))
    return wrong


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 10_000 and all(_is_id(v) for v in value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _plain(value: Any) -> Any:
    """Only what is surely an id goes into a log line."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value if isinstance(value, str) and len(value) <= 128 and value.isprintable() else None
