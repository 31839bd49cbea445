"""The unit of work: one transaction with one instant and one answer per command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from models import outbox, requests
from models.db import database as db
from models.db.pipeline import Cursor, pipeline
from models.requests import Answer, IdempotentCommand
from policies.verdicts import OutboxMessage, Verdict

C = TypeVar("C", bound=IdempotentCommand)
T = TypeVar("T")


class UnitOfWork(Generic[C]):
    """The transaction of a task, with its instant, its commands and their answers.

    `pending` are the commands that have no stored answer.
    """

    def __init__(
        self,
        conn: Connection,
        clock: db.Clock,
        commands: Sequence[C],
        parent: IdempotentCommand | None = None,
        prefetch: Callable[[Connection], Cursor] | None = None,
    ) -> None:
        self.conn = conn
        self.commands = commands
        self._clock = clock
        self._fetch_now: Callable[[], datetime] | None = None
        self._now: datetime | None = None
        all_commands: list[IdempotentCommand] = [*commands, *([parent] if parent is not None else [])]
        self._answers: dict[str, Answer] = {}
        self.prefetched: Cursor | None = None
        if all_commands:
            with pipeline(conn):  # with the transaction's BEGIN
                earlier = requests.send_earlier_answers(conn, all_commands)
                self.prefetched = prefetch(conn) if prefetch is not None else None
            self._answers = requests.fetch_earlier_answers(earlier, all_commands)
        self.parent_answer = self._answers.pop(parent.request_id, None) if parent is not None else None
        """The stored answer of `parent`, if any."""
        self._stored: list[tuple[IdempotentCommand, Answer]] = []
        self._checks: list[Callable[[], None]] = []
        self.tasks_to_wake: set[str] = set()
        """Sweeps that this commit gives work, which run soon after it."""
        self.pending: list[C] = [c for c in commands if c.request_id not in self._answers]

    @property
    def now(self) -> datetime:
        """The instant of this unit of work, read once.  Take the locks before the first use."""
        if self._now is None:
            self.send_clock_query()
            assert self._fetch_now is not None
            self._now = self._fetch_now()
        return self._now

    def send_clock_query(self) -> None:
        if self._fetch_now is None:
            self._fetch_now = self._clock.send_now(self.conn)

    def answer(self, command: C, verdict: Verdict | Answer, *, store: bool = True, order_id: int | None = None) -> None:
        """Answer one command.  `done` and `refused` are stored under the request id unless `store` is false."""
        answer = verdict if isinstance(verdict, Answer) else requests.answer_from_verdict(command, verdict, order_id)
        self._answers[command.request_id] = answer
        if store and answer.outcome in ("done", "refused"):
            self._stored.append((command, answer))

    def store_answer(self, command: IdempotentCommand, answer: Answer) -> None:
        self._stored.append((command, answer))

    def enqueue(self, messages: Sequence[OutboxMessage]) -> None:
        outbox.enqueue(self.conn, messages, self.now)
        if messages:
            self.tasks_to_wake.add(outbox.RELAY)

    @property
    def answers(self) -> list[Answer]:
        return [self._answers[c.request_id] for c in self.commands]

    def send_answers(self) -> None:
        """Send the insert of the request rows, which must be the last write; in a pipeline it costs no round trip."""
        answers, self._stored = self._stored, []
        if answers:
            self._checks.append(requests.insert_answers(self.conn, answers, self.now))

    def raise_if_raced(self) -> None:
        for check in self._checks:
            check()


@contextmanager
def unit_of_work(
    commands: Sequence[C] = (),
    *,
    parent: IdempotentCommand | None = None,
    prefetch: Callable[[Connection], Cursor] | None = None,
) -> Iterator[UnitOfWork[C]]:
    """Open a transaction; at its end write the request rows, commit, and wake the tasks that it gives work.

    `parent` is the command that these commands are part of; its stored answer is read in the first round trip.
    `prefetch` sends another query in that round trip, without locks; its cursor is `UnitOfWork.prefetched`.
    Raises `RequestRaced` if another transaction answered one of the requests meanwhile: nothing was written, run again.
    """
    database = db.current_database()
    with database.transaction(by_keys=bool(commands)) as conn:
        work = UnitOfWork(conn, database.clock, commands, parent, prefetch)
        yield work
        work.send_answers()
        work.raise_if_raced()
    for task in work.tasks_to_wake:
        database.wake(task)


MAX_CONFLICT_RETRIES = 6
CONFLICT_SQLSTATES = ("40001", "40P01", "55P03", "23505")
"""Serialization failure, deadlock, lock timeout and unique violation: nothing was written, and the whole unit of work
may run again and then sees what the other transaction did."""


def retry_on_conflict(body: Callable[[], T]) -> T:
    """Run a unit of work, and run it again after a conflict, at most `MAX_CONFLICT_RETRIES` times with jitter."""
    return _RETRYING(body)


def is_conflict(error: BaseException) -> bool:
    """Return whether the error is a conflict with another transaction, after which the unit of work may run again."""
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) in CONFLICT_SQLSTATES
    return isinstance(error, requests.RequestRaced | StaleRead)


_RETRYING = Retrying(
    retry=retry_if_exception(is_conflict),
    stop=stop_after_attempt(MAX_CONFLICT_RETRIES),
    wait=wait_random_exponential(multiplier=0.02, max=0.5),
    reraise=True,
)


class StaleRead(Exception):
    """What was read before locking has changed, so the locks taken may be too weak."""
