"""What is one unit of work?  One transaction, one instant, one answer per command, committed at its edge and nowhere else."""

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
    """The transaction a task works in: its connection, its instant, its commands and their answers."""

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
        asked: list[IdempotentCommand] = [*commands, *([parent] if parent is not None else [])]
        self._answers: dict[str, Answer] = {}
        self.prefetched: Cursor | None = None
        if asked:
            with pipeline(conn):  # with the transaction's BEGIN
                earlier = requests.send_earlier_answers(conn, asked)
                self.prefetched = prefetch(conn) if prefetch is not None else None
            self._answers = requests.fetch_earlier_answers(earlier, asked)
        self.parent_answer = self._answers.pop(parent.request_id, None) if parent is not None else None
        """The earlier answer of the command that this work is a part of."""
        self._stored: list[tuple[IdempotentCommand, Answer]] = []
        self._checks: list[Callable[[], None]] = []
        self.has_messages = False
        self.pending: list[C] = [c for c in commands if c.request_id not in self._answers]

    @property
    def now(self) -> datetime:
        """The instant of this unit of work, read once: take the locks first (reliability F50)."""
        if self._now is None:
            self.send_clock_query()
            assert self._fetch_now is not None
            self._now = self._fetch_now()
        return self._now

    def send_clock_query(self) -> None:
        """Read the clock in the trip that takes the last locks."""
        if self._fetch_now is None:
            self._fetch_now = self._clock.send_now(self.conn)

    def answer(self, command: C, verdict: Verdict | Answer, *, store: bool = True, order_id: int | None = None) -> None:
        """Answer one command.  `done` and `refused` are kept for the same request id to come again (contract 2.1)."""
        answer = verdict if isinstance(verdict, Answer) else requests.answer_from_verdict(command, verdict, order_id)
        self._answers[command.request_id] = answer
        if store and answer.outcome in ("done", "refused"):
            self._stored.append((command, answer))

    def store_answer(self, command: IdempotentCommand, answer: Answer) -> None:
        """Keep the answer of a command that this work was the last part of."""
        self._stored.append((command, answer))

    def enqueue(self, promises: Sequence[OutboxMessage]) -> None:
        """What must follow this commit."""
        outbox.enqueue(self.conn, promises, self.now)
        self.has_messages = self.has_messages or bool(promises)

    @property
    def answers(self) -> list[Answer]:
        """One answer per command, in the order of the commands."""
        return [self._answers[c.request_id] for c in self.commands]

    def send_answers(self) -> None:
        """Write the request rows, last of all; whoever closes in the trip of its own last writes saves one."""
        kept, self._stored = self._stored, []
        if kept:
            self._checks.append(requests.insert_answers(self.conn, kept, self.now))

    def raise_if_raced(self) -> None:
        """Raise `RequestRaced` if a twin had written one of those rows."""
        for check in self._checks:
            check()


@contextmanager
def unit_of_work(
    commands: Sequence[C] = (),
    *,
    parent: IdempotentCommand | None = None,
    prefetch: Callable[[Connection], Cursor] | None = None,
) -> Iterator[UnitOfWork[C]]:
    """Open the transaction; at its end write the request rows and commit; after it nudge the relay if anything was promised.

    `part_of`: the command of which these are a part; whether it was answered before is asked in the same trip.
    `look`: what else to ask of the commands in that trip, without a lock; `Work.looked` has it.
    Raises `RequestRaced` when a twin answered one of these requests meanwhile: nothing was written, do it again.
    """
    database = db.current_database()
    with database.transaction(by_keys=bool(commands)) as conn:
        work = UnitOfWork(conn, database.clock, commands, parent, prefetch)
        yield work
        work.send_answers()
        work.raise_if_raced()
    if work.has_messages:
        database.on_outbox_insert()


MAX_CONFLICT_RETRIES = 6
CONFLICT_SQLSTATES = ("40001", "40P01", "55P03", "23505")
"""Serialization failure, deadlock, lock timeout, and a natural key that somebody else wrote meanwhile: nothing of ours was
written, and the whole unit of work may run again and will see what the other did (F46)."""


def retry_on_conflict(body: Callable[[], T]) -> T:
    """Run a unit of work, and again a few times with jitter when it clashed with somebody else's."""
    return _AGAIN(body)


def is_conflict(error: BaseException) -> bool:
    """Whether the unit of work lost against another one and may simply run again."""
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) in CONFLICT_SQLSTATES
    return isinstance(error, requests.RequestRaced | StaleRead)


_AGAIN = Retrying(
    retry=retry_if_exception(is_conflict),
    stop=stop_after_attempt(MAX_CONFLICT_RETRIES),
    wait=wait_random_exponential(multiplier=0.02, max=0.5),
    reraise=True,
)


class StaleRead(Exception):
    """What was read before the locks is not true any more, so that weaker locks were taken than are needed."""
