"""The base class of all tasks: validates arguments, runs the task, retries failures and finally parks them.

Arguments are validated into a command (or answered `invalid`), the task runs on a list of one, and conflicts with other
transactions are retried at once.  What happens to other failures depends on the kind of task:

- A command is retried with backoff and finally parked in `dead_jobs`, where operators see it and can requeue it.  While
  it can be neither answered nor parked, its message is redelivered with backoff, without limit.
- An outbox consumer's rows are bisected, so that a row that fails stops no other.  The relay publishes a failed row
  with backoff; it is finally parked too.
- A tick of the timetable is not retried: the next tick does all its work.
"""

from __future__ import annotations

import contextlib
import random
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from celery import Task

from models import dead_jobs, outbox
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.db.database import is_database_unavailable
from models.stored_answers import Answer
from tasks.command import Command
from tasks.command_parsing import parse_command
from workers.errors import SanitizedError, sanitize_error, summarize_error, traceback_path

log = structlog.get_logger(__name__)

MAX_RETRIES = 8
"""For an unexpected error: with the waits below the job is parked after about two minutes."""
MAX_CONSUMER_RETRIES = 2
"""While the database is away; after that the relay publishes the row again, 10 s after its first message."""
MAX_WAIT = 30.0
"""Seconds.  Far below half the visibility timeout: a message that waits for longer is delivered twice."""
FIRST_ERROR_HEADER = "first_error"
"""Header of a retried message: a parked job records its first error besides its last."""
MAX_TASK_ERROR_LENGTH = 500
UNLIMITED_RETRIES = 1_000_000
"""Parking needs the database too, so a command waits for the database without limit; its message stays in the
broker."""


TaskOutcome = dict[str, Any] | Exception
"""What became of a command: its answer, or why it has none."""


class BaseTask(Task):
    abstract = True
    _known_outcome: TaskOutcome | None = None
    command_model: type[Command] | None = None
    """The argument model of a public task (`tasks.declarations`); an internal task has none."""
    Request = "workers.redaction:RedactedRequest"
    typing = False  # a missing argument is the caller's mistake and is answered `invalid` instead of a TypeError
    max_retries = 3  # of a task whose worker process dies; then `workers.transport.lost_jobs` parks it
    default_retry_delay = 1
    resultrepr_maxsize = 512  # long enough for `workers.redaction` to find the counts; it is never shown unredacted

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        message_id = self.request.id or "local"
        context = {
            "task": self.name,
            "message": message_id,
            "order": self._loggable_id(kwargs.get("order_id")),
            "request": self._loggable_id(kwargs.get("request_id")),
            "cause": self._loggable_id(self.request.parent_id),
        }
        with structlog.contextvars.bound_contextvars(
            **{name: value for name, value in context.items() if value is not None}
        ):
            try:
                answer = self._take_known_outcome() or self.validate_and_run(kwargs, message_id, positional=len(args))
            except Exception as caught:  # noqa: BLE001 - whatever it is, the job must not be lost
                error = caught
            else:
                write = log.info if self.command_model is not None else log.debug  # a line a tick would hide the others
                write("answered", outcome=answer["outcome"], code=answer["code"])
                return answer
            # Outside the handler, so that the new exception has no chain: Celery passes a whole chain to logs, events
            # and the result backend, and the original error may hold private values.
            self._handle_failure(kwargs, error)
            raise sanitize_error(error)

    def validate_and_run(self, arguments: Mapping[str, Any], message_id: str, *, positional: int = 0) -> dict[str, Any]:
        """Validate the arguments, run the task and return its answer as JSON.  Raises only for bugs and broken
        infrastructure.

        `positional` is the number of positional arguments in the message.
        """
        model = self.command_model
        if model is None:
            problems = self._find_invalid_arguments(arguments, positional)
            if problems:
                return Answer.invalid(message_id, problems).as_json()
            effects = retry_on_conflict(lambda: self.run(**arguments))
            return Answer("done", message_id, "Done.", effects=effects).as_json()
        command = parse_command(model, arguments, message_id, positional=positional)
        if isinstance(command, Answer):
            return command.as_json()
        answers: list[Answer] = retry_on_conflict(lambda: self.run([command]))
        return answers[0].as_json()

    def _find_invalid_arguments(self, arguments: Mapping[str, Any], positional: int) -> list[tuple[str, str]]:
        parameters = {name for name in typing.get_type_hints(self.run) if name != "return"}
        problems = [("args", "only keyword arguments are accepted")] if positional else []
        for name, value in arguments.items():
            if name not in parameters:
                problems.append((name[:100], "there is no such argument"))
            elif name == "rows" and value is not None:
                if not (isinstance(value, list) and len(value) <= 10_000 and all(map(self._is_id, value))):
                    problems.append((name, "must be a list of ids"))
            elif value is not None and not self._is_id(value):
                problems.append((name, "must be an id"))
        return problems

    @staticmethod
    def _is_id(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63

    @staticmethod
    def _loggable_id(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return value if isinstance(value, str) and len(value) <= 128 and value.isprintable() else None

    @staticmethod
    @contextlib.contextmanager
    def known_outcome(outcome: TaskOutcome) -> Iterator[None]:
        """Let the next task that is called report this outcome: its batch has already run it."""
        BaseTask._known_outcome = outcome  # a process runs one task at a time
        raised_at = outcome.__traceback__ if isinstance(outcome, Exception) else None
        try:
            yield
        finally:
            BaseTask._known_outcome = None
            if isinstance(outcome, Exception):
                outcome.__traceback__ = raised_at  # several commands may have it

    @staticmethod
    def _take_known_outcome() -> dict[str, Any] | None:
        outcome, BaseTask._known_outcome = BaseTask._known_outcome, None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _handle_failure(self, kwargs: dict[str, Any], error: Exception) -> None:
        # Raise Celery's Retry, or return when the task is parked or will be sent again.
        # A command must leave in no other way: `workers.transport.acknowledgement` takes one with a SanitizedError for
        # parked.
        if self.command_model is None and ("rows" in kwargs or not kwargs):
            self._handle_internal_failure(kwargs.get("rows"), error)
        elif is_database_unavailable(error) or self.request.retries < MAX_RETRIES or not self._park(kwargs, error):
            self._retry_later(error)

    def _handle_internal_failure(self, rows: Sequence[int] | None, error: Exception) -> None:
        if rows is None:
            log.error("tick_failed", error=summarize_error(error), path=traceback_path(error))
        elif is_database_unavailable(error):
            if self.request.retries < MAX_CONSUMER_RETRIES:
                self._retry_later(error)
            log.warning("outbox_rows_postponed", error=summarize_error(error))
        else:
            try:
                if rows:
                    self.bisect_failure(rows, error)
                else:
                    with db.current_database().transaction() as conn:
                        new_rows = outbox.new_rows(conn, self.name)
                    self._run_bisected(new_rows)
            except Exception as problem:  # noqa: BLE001 - its rows stay due
                log.warning("outbox_rows_postponed", error=summarize_error(problem), path=traceback_path(problem))

    def bisect_failure(self, rows: Sequence[int], error: Exception) -> None:
        if len(rows) > 1:
            middle = len(rows) // 2
            self._run_bisected(rows[:middle])
            self._run_bisected(rows[middle:])
            return
        log.error("outbox_row_failed", outbox_id=rows[0], error=summarize_error(error), path=traceback_path(error))
        database = db.current_database()
        with database.transaction() as conn:
            outbox.record_outbox_failure(conn, rows[0], summarize_error(error), database.clock.now(conn))

    def _run_bisected(self, rows: Sequence[int]) -> None:
        if not rows:  # other processes handled them
            return
        try:
            retry_on_conflict(lambda: self.run(rows=list(rows)))
        except Exception as error:
            if is_database_unavailable(error):
                raise
            self.bisect_failure(rows, error)

    def _park(self, kwargs: dict[str, Any], error: Exception) -> bool:
        # Whether the job is parked; if not, nothing is lost, since its message is still in the broker.
        try:
            database = db.current_database()
            with database.transaction() as conn:
                dead_jobs.park_job(
                    conn,
                    task=self.name,
                    message_id=self.request.id,
                    arguments=kwargs,
                    error=summarize_error(error),
                    first_error=self._first_error(),
                    attempts=self.request.retries + 1,
                    now=database.clock.now(conn),
                )
        # Whatever keeps it from being parked, the message must not be lost.
        except Exception as park_error:  # noqa: BLE001
            log.error("job_park_failed", error=summarize_error(error), because=summarize_error(park_error))
            return False
        log.error("job_parked", error=summarize_error(error), path=traceback_path(error))
        return True

    def _retry_later(self, error: Exception) -> None:
        retries = self.request.retries
        # Jitter, not a secret.
        wait = min(MAX_WAIT, 0.5 * 2 ** min(retries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        log.warning("task_retry", error=summarize_error(error), attempt=retries + 1, wait=round(wait, 1))
        headers = {FIRST_ERROR_HEADER: self._first_error() or summarize_error(error)[:MAX_TASK_ERROR_LENGTH]}
        raise self.retry(
            exc=SanitizedError(summarize_error(error)), countdown=wait, max_retries=UNLIMITED_RETRIES, headers=headers
        )

    def _first_error(self) -> str | None:
        # The first attempt's error from the message's header, which any producer can set, hence the checks.
        text = (self.request.headers or {}).get(FIRST_ERROR_HEADER)
        if not isinstance(text, str) or not text.isprintable():
            return None
        return text[:MAX_TASK_ERROR_LENGTH]
