"""Stored answers by request id, so that every command takes effect exactly once.

A request's row is written by the same commit as the effect, and inserted last: if another transaction inserted it
first, all is rolled back and run again, which finds the stored answer of that request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol

from sqlalchemy import Connection, Index, select
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import is_any_of_ids, text_array
from models.db.bulk import send_insert
from models.db.pipeline import Cursor, Fetch, execute
from models.db.row_mapping import to_columns, to_row
from models.db.schema import Base, BigInt, check_in
from policies.timestamps import format_optional_timestamp
from policies.verdicts import Code, Invalid, Refused, Verdict


class RequestRow(Base):
    __tablename__ = "requests"
    __table_args__ = (
        check_in("outcome", ("done", "refused")),
        Index("ix_requests_answered_at", "answered_at"),
    )

    request_id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    fingerprint: Mapped[bytes]
    order_id: Mapped[BigInt | None]
    outcome: Mapped[str]
    answer: Mapped[dict[str, Any]]
    answered_at: Mapped[datetime]


class IdempotentCommand(Protocol):
    task: ClassVar[str]

    @property
    def request_id(self) -> str: ...

    @property
    def fingerprint(self) -> bytes: ...

    @property
    def subject(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: str
    request_id: str
    message: str = ""
    code: str | None = None
    order_id: int | None = None
    possible_from: str | None = None
    errors: list[dict[str, str]] = field(default_factory=list)
    effects: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False

    @classmethod
    def done(cls, command: IdempotentCommand, effects: dict[str, Any]) -> Answer:
        return cls("done", command.request_id, "Done.", order_id=command.subject, effects=effects)

    @classmethod
    def invalid(cls, request_id: str, problems: Iterable[tuple[str, str]], *, order_id: int | None = None) -> Answer:
        errors = [{"path": path, "message": message} for path, message in problems]
        message = "The arguments do not fit; `errors` names each."
        return cls("invalid", request_id, message, order_id=order_id, errors=errors)

    @classmethod
    def conflict(cls, command: IdempotentCommand) -> Answer:
        message = "This request id was used before for something else; use a new one for a new command."
        return cls("conflict", command.request_id, message, Code.REQUEST_ID_REUSED, command.subject)

    @classmethod
    def from_verdict(cls, command: IdempotentCommand, verdict: Verdict, order_id: int | None = None) -> Answer:
        """Return the answer for a verdict. Pass `order_id` where the command does not name its order itself."""
        order_id = order_id or command.subject
        if isinstance(verdict, Refused):
            possible_from = format_optional_timestamp(verdict.possible_from)
            return cls("refused", command.request_id, verdict.sentence, verdict.code, order_id, possible_from)
        if isinstance(verdict, Invalid):
            return cls.invalid(command.request_id, [(verdict.path, verdict.message)], order_id=order_id)
        return cls("done", command.request_id, "Done.", order_id=order_id, effects=verdict.effects)

    def as_json(self) -> dict[str, Any]:
        return to_row(self, _ANSWER_FIELDS)


_ANSWER_FIELDS = (
    "outcome", "code", "message", "request_id", "order_id", "possible_from", "errors", "effects", "replayed",
)  # fmt: skip


class AlreadyAnswered(Exception):
    """The command that a batch is part of has a stored answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


_EARLIER_ANSWERS = select(RequestRow.request_id, RequestRow.fingerprint, RequestRow.answer).where(
    is_any_of_ids(RequestRow.request_id)
)


def send_earlier_answers_query(conn: Connection, commands: Sequence[IdempotentCommand]) -> Fetch[dict[str, Answer]]:
    rows = execute(conn, _EARLIER_ANSWERS, {"ids": text_array([c.request_id for c in commands])})
    by_id = {c.request_id: c for c in commands}
    return lambda: {
        row.request_id: mark_replayed(Answer(**row.answer))
        if bytes(row.fingerprint) == by_id[row.request_id].fingerprint
        else Answer.conflict(by_id[row.request_id])
        for row in rows
    }


def answered_at(conn: Connection, request_id: str) -> datetime | None:
    return conn.execute(select(RequestRow.answered_at).where(RequestRow.request_id == request_id)).scalar()


def mark_replayed(answer: Answer) -> Answer:
    effects = answer.effects
    if "answers" in effects:
        effects = effects | {"answers": [item | {"replayed": True} for item in effects["answers"]]}
    return replace(answer, replayed=True, effects=effects)


def insert_answers(conn: Connection, answered: Sequence[tuple[IdempotentCommand, Answer]], now: datetime) -> Cursor:
    """Send the insert of the request rows that do not exist; never pass `invalid` or `conflict` answers or dry runs."""
    commands, answers = zip(*answered, strict=True)
    columns = to_columns(commands, ("request_id", "task", "fingerprint")) | {
        "order_id": [command.subject for command in commands],
        "outcome": [answer.outcome for answer in answers],
        "answer": [answer.as_json() for answer in answers],
        "answered_at": [now] * len(answers),
    }
    return send_insert(conn, RequestRow, columns, skip_existing=True)
