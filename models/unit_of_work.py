"""The unit of work: one transaction with one instant and one answer per command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeVar, overload

from sqlalchemy import Connection

from models import events, orders, outbox, stored_answers
from models.db import database as db
from models.db.conflicts import Conflict
from models.db.pipeline import Cursor, Fetch, pipeline
from models.stored_answers import AlreadyAnswered, Answer, IdempotentCommand
from policies.verdicts import OutboxMessage, Verdict

C = TypeVar("C", bound=IdempotentCommand)


@dataclass(eq=False)
class UnitOfWork(Generic[C]):
    """The transaction of a task, with its instant, its commands and their answers.

    `pending` are the commands that have no stored answer; `parties` are those of the orders that the commands name.
    """

    conn: Connection
    _clock: db.Clock
    commands: Sequence[C]
    _answers: dict[str, Answer]
    parties: orders.OrderParties
    tasks_to_wake: set[str] = field(default_factory=set)
    """Internal tasks that this commit gives work, which run soon after it."""
    _fetch_now: Fetch[datetime] | None = None
    _stored: list[tuple[IdempotentCommand, Answer]] = field(default_factory=list)
    _stores_answers: bool = True
    _answer_inserts: list[tuple[Cursor, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pending: list[C] = [c for c in self.commands if c.request_id not in self._answers]

    @property
    def now(self) -> datetime:
        """The instant of this unit of work, read once.  Take the locks before the first use."""
        return self.send_clock_query()()

    def advance_now(self) -> None:
        """Let the next use of `now` read the clock again, because locks are taken after what was found by it."""
        self._fetch_now = None

    def send_clock_query(self) -> Fetch[datetime]:
        if self._fetch_now is None:
            self._fetch_now = cache(self._clock.send_now(self.conn))
        return self._fetch_now

    def take(self, commands: Sequence[C]) -> None:
        """Make `commands`, which a sweep found to be due, those of this unit of work.  Their answers are not stored."""
        self.commands, self.pending, self._stores_answers = commands, list(commands), False
        self.parties = orders.send_order_parties_query(
            self.conn, [c.subject for c in commands if c.subject is not None]
        )()

    def answer(self, command: C, verdict: Verdict | Answer, *, store: bool = True, order_id: int | None = None) -> None:
        """Answer one command.  `done` and `refused` are stored under the request id unless `store` is false."""
        answer = verdict if isinstance(verdict, Answer) else Answer.from_verdict(command, verdict, order_id)
        self._answers[command.request_id] = answer
        if store and self._stores_answers and answer.outcome in ("done", "refused"):
            self._stored.append((command, answer))

    def enqueue(self, messages: Sequence[OutboxMessage]) -> None:
        outbox.enqueue_messages(self.conn, messages, self.now)
        self.tasks_to_wake |= {message.task for message in messages}

    def record_event(self, type_: str, command: IdempotentCommand, note: str, **columns: Any) -> None:
        """Record an event that is of no order."""
        row = events.event_row(type_, self.now, note=note, request_id=command.request_id, **columns)
        events.append_events(self.conn, [row])

    def claim_messages(self, task: str, rows: Sequence[int] | None, order_id: int | None) -> list[outbox.DueMessage]:
        due = outbox.claim_messages(self.conn, task, rows=rows, order_id=order_id)
        if len(due) == outbox.MAX_CLAIMED_ROWS:
            db.current_database().wake_at_once(task)  # another process takes the next rows meanwhile
        return due

    @property
    def answers(self) -> list[Answer]:
        return [self._answers[c.request_id] for c in self.commands]

    def send_answers(self) -> None:
        """Send the insert of the request rows, which must be the last write; in a pipeline it costs no round trip."""
        answers, self._stored = self._stored, []
        if answers:
            self._answer_inserts.append((stored_answers.insert_answers(self.conn, answers, self.now), len(answers)))

    def raise_if_raced(self) -> None:
        if any(inserted.rowcount != number for inserted, number in self._answer_inserts):
            raise Conflict("another transaction answered one of the requests meanwhile")


@overload
def unit_of_work() -> AbstractContextManager[UnitOfWork[Any]]: ...
@overload
def unit_of_work(
    commands: Sequence[C], *, parent: IdempotentCommand | None = None
) -> AbstractContextManager[UnitOfWork[C]]: ...
@contextmanager
def unit_of_work(commands: Sequence[Any] = (), *, parent: IdempotentCommand | None = None) -> Iterator[UnitOfWork[Any]]:
    """Open a transaction; at its end write the request rows, commit, and wake the tasks that it gives work.

    Raises `AlreadyAnswered` if the command that these commands are part of has a stored answer, and `Conflict` if
    another transaction answered one of the requests meanwhile: nothing was written, run again.
    """
    database = db.current_database()
    with database.transaction(by_keys=bool(commands)) as conn:
        work = _start_unit_of_work(conn, database.clock, commands, parent)
        yield work
        work.send_answers()
        work.raise_if_raced()
    for task in work.tasks_to_wake:
        database.wake(task)


def _start_unit_of_work(
    conn: Connection, clock: db.Clock, commands: Sequence[C], parent: IdempotentCommand | None
) -> UnitOfWork[C]:
    all_commands: list[IdempotentCommand] = [*commands, *([parent] if parent is not None else [])]
    if not all_commands:
        return UnitOfWork(conn, clock, commands, {}, orders.OrderParties())
    order_ids = [c.subject for c in commands if c.subject is not None]
    with pipeline(conn):
        fetch_answers = stored_answers.send_earlier_answers_query(conn, all_commands)
        fetch_parties = orders.send_order_parties_query(conn, order_ids) if order_ids else orders.OrderParties
    answers = fetch_answers()
    if parent is not None and parent.request_id in answers:
        raise AlreadyAnswered(answers[parent.request_id])
    return UnitOfWork(conn, clock, commands, answers, fetch_parties())
