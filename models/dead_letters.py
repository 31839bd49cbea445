"""The table of dead letters: messages no task could accept, with the beginning of their body.

The command line shows only ids and lengths of them; the body is stored as base64.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from models.db.bulk import insert_rows
from models.db.schema import Base, BigIntKey, check_in, table_of
from policies.texts import replace_unprintable

MAX_BODY_BYTES = 4096
"""How much of the body is stored: enough to recognise it."""
MAX_NAME_LENGTH = 200
MAX_DEAD_LETTERS = 10_000
"""Only the newest rows are kept, so that nobody can fill the database by pushing to a queue."""

DEAD_LETTER_ROW_REASONS = {
    "TOO_LARGE": "is longer than its queue allows",
    "NOT_JSON": "is not JSON",
    "NOT_A_COMMAND": "does not have the shape of a command",
    "NOT_ALLOWED": "contains a directive to the worker, which no message may",
    "WRONG_QUEUE": "names a task that does not go through its queue",
    "TASK_UNKNOWN": "names no known task",
    "EXPIRED": "arrived after it had expired",
}
"""Why no task could accept a message, with the words for it."""


class DeadLetterRow(Base):
    __tablename__ = "dead_letters"
    __table_args__ = (check_in("reason", tuple(DEAD_LETTER_ROW_REASONS)),)

    dead_letter_id: Mapped[BigIntKey]
    key: Mapped[UUID] = mapped_column(unique=True, server_default=text("gen_random_uuid()"))
    reason: Mapped[str]
    detail: Mapped[str] = mapped_column(server_default="")
    task_name: Mapped[str | None]
    message_id: Mapped[str | None]
    queue: Mapped[str | None]
    body_bytes: Mapped[int]
    body: Mapped[str]
    received_at: Mapped[datetime]
    requeued_at: Mapped[datetime | None]


def insert_dead_letter(conn: Connection, letter: Mapping[str, Any], now: datetime) -> None:
    """Store a letter as it waits in the broker (`workers.transport.dead_letters`)."""
    row = {
        **{name: letter[name] for name in ("key", "reason", "detail")},
        "task_name": _storable_task_name(letter["named"]),
        "message_id": _storable_task_name(letter["message_id"]),
        "queue": _storable_task_name(letter["queue"]),
        "body_bytes": letter["length"],
        "body": letter["body_start"],
        "received_at": now,
    }
    insert_rows(conn, DeadLetterRow, [row], skip_existing=True)
    newest = select(DeadLetterRow.dead_letter_id).order_by(DeadLetterRow.dead_letter_id.desc())
    too_old = newest.offset(MAX_DEAD_LETTERS).limit(1).scalar_subquery()
    conn.execute(delete(DeadLetterRow).where(DeadLetterRow.dead_letter_id <= too_old))


def list_newest_dead_letters(conn: Connection, *, limit: int) -> list[Row[Any]]:
    shown = [column for column in table_of(DeadLetterRow).c if column.name != "body"]
    return list(conn.execute(select(*shown).order_by(DeadLetterRow.dead_letter_id.desc()).limit(limit)))


def get_dead_letter(conn: Connection, dead_letter_id: int) -> Row[Any] | None:
    return conn.execute(select(DeadLetterRow).where(DeadLetterRow.dead_letter_id == dead_letter_id)).one_or_none()


def mark_dead_letter_requeued(conn: Connection, dead_letter_id: int, now: datetime) -> bool:
    waits = (DeadLetterRow.dead_letter_id == dead_letter_id, DeadLetterRow.requeued_at.is_(None))
    return conn.execute(update(DeadLetterRow).where(*waits).values(requeued_at=now)).rowcount > 0


def _storable_task_name(text: str | None) -> str | None:
    # Text that PostgreSQL can store and a terminal can show.
    return None if text is None else replace_unprintable(text[:MAX_NAME_LENGTH])
