"""Which commands were answered, and how?  The ledger that makes every command exactly-once (promises.md P2).

A request row is written by the same commit as the effect.  It is inserted last: a twin that raced us makes the insert find
a row, and the whole unit of work is then done again and finds the first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol

from sqlalchemy import BigInteger, Column, Connection, Index, LargeBinary, Table, Text

from models.db.bulk import send_insert
from models.db.pipeline import Cursor, execute, text_array
from models.db.schema import Json, Timestamp, check_in, metadata
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Invalid, Refused, Verdict

requests = Table(
    "requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("task", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("order_id", BigInteger),
    Column("outcome", Text, nullable=False),
    Column("answer", Json, nullable=False),
    Column("answered_at", Timestamp, nullable=False),
    check_in("outcome", ("done", "refused")),
    Index("ix_requests_answered_at", "answered_at"),
)


class RequestRaced(Exception):
    """The same request id was answered by somebody else meanwhile: do the unit of work again and give that answer."""


class IdempotentCommand(Protocol):
    """What the ledger needs to know of a command."""

    task: ClassVar[str]

    @property
    def request_id(self) -> str:
        """The idempotency key."""
        ...

    @property
    def fingerprint(self) -> bytes:
        """Hash of task and normalised arguments."""
        ...

    @property
    def subject(self) -> int | None:
        """The order it is about, if any."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What every public task returns (contract 2.1)."""

    outcome: str
    request_id: str
    message: str = ""
    code: str | None = None
    order_id: int | None = None
    possible_from: str | None = None
    errors: list[dict[str, str]] = field(default_factory=list)
    effects: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False

    def as_json(self) -> dict[str, Any]:
        """The answer as the caller gets it."""
        return {
            "outcome": self.outcome,
            "code": self.code,
            "message": self.message,
            "request_id": self.request_id,
            "order_id": self.order_id,
            "possible_from": self.possible_from,
            "errors": self.errors,
            "effects": self.effects,
            "replayed": self.replayed,
        }


def answer_from_verdict(command: IdempotentCommand, verdict: Verdict, order_id: int | None = None) -> Answer:
    """Put a verdict into the words of the contract.  `order_id` where the command names its order only indirectly."""
    order_id = order_id or command.subject
    if isinstance(verdict, Refused):
        return Answer(
            "refused",
            command.request_id,
            verdict.message,
            verdict.code,
            order_id,
            format_timestamp(verdict.possible_from) if verdict.possible_from else None,
        )
    if isinstance(verdict, Invalid):
        return invalid(command.request_id, [(verdict.path, verdict.message)], order_id=order_id)
    return Answer("done", command.request_id, "Done.", order_id=order_id, effects=verdict.effects)


def done(command: IdempotentCommand, effects: dict[str, Any]) -> Answer:
    """A command that was carried out, with its effects."""
    return Answer("done", command.request_id, "Done.", order_id=command.subject, effects=effects)


def invalid(request_id: str, problems: Iterable[tuple[str, str]], *, order_id: int | None = None) -> Answer:
    """Arguments that do not fit: paths and messages, never the values."""
    return Answer(
        "invalid",
        request_id,
        "The arguments do not fit; `errors` names each.",
        order_id=order_id,
        errors=[{"path": path, "message": message} for path, message in problems],
    )


def conflict(command: IdempotentCommand) -> Answer:
    """The request id was used before with other arguments."""
    return Answer(
        "conflict",
        command.request_id,
        "This request id was used before for something else; use a new one for a new command.",
        Code.REQUEST_ID_REUSED,
        command.subject,
    )


_EARLIER = """
    SELECT request_id, fingerprint, answer FROM unwind.requests WHERE request_id = ANY(CAST(%(ids)s AS text[]))
"""


def earlier_answers(conn: Connection, commands: Sequence[IdempotentCommand]) -> dict[str, Answer]:
    """The answers that were given before, by request id: the same again, or `conflict` for other arguments."""
    return fetch_earlier_answers(send_earlier_answers(conn, commands), commands)


def send_earlier_answers(conn: Connection, commands: Sequence[IdempotentCommand]) -> Cursor:
    """The same, to be read when the statements that go with it were sent."""
    return execute(conn, _EARLIER, {"ids": text_array([c.request_id for c in commands])})


def fetch_earlier_answers(rows: Cursor, commands: Sequence[IdempotentCommand]) -> dict[str, Answer]:
    """What was asked."""
    by_id = {c.request_id: c for c in commands}
    return {
        row.request_id: replace(answer_from_row(row.answer), replayed=True)
        if bytes(row.fingerprint) == by_id[row.request_id].fingerprint
        else conflict(by_id[row.request_id])
        for row in rows
    }


def is_answered(conn: Connection, request_id: str) -> bool:
    """Whether there is an answer to a command with this id."""
    return bool(execute(conn, "SELECT 1 FROM unwind.requests WHERE request_id = %(id)s", {"id": request_id}).fetchall())


def insert_answers(
    conn: Connection, answered: Sequence[tuple[IdempotentCommand, Answer]], now: datetime
) -> Callable[[], None]:
    """Write the request rows.  `invalid`, `conflict` and dry runs are not kept and must not be passed.

    Gives what to call when they were sent, before the commit: it raises `RequestRaced` if any of them was there already.
    """
    rows = [
        {
            "request_id": command.request_id,
            "task": command.task,
            "fingerprint": command.fingerprint,
            "order_id": command.subject,
            "outcome": answer.outcome,
            "answer": answer.as_json(),
            "answered_at": now,
        }
        for command, answer in answered
    ]
    written = send_insert(conn, requests, rows, skip_existing=True)

    def check() -> None:
        if written.rowcount != len(rows):
            raise RequestRaced

    return check


def answer_from_row(answer: dict[str, Any]) -> Answer:
    """Read an answer back from its row."""
    return Answer(**answer)
