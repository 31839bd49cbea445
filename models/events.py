"""The append-only log of changes: who, what, from, to, when, why, by which request (R100)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, UniqueConstraint, select
from sqlalchemy.orm import Mapped, mapped_column

from models.db.bulk import insert_rows
from models.db.schema import Base, BigInt, BigIntKey, partial_index
from models.feed import WrittenIn


class EventRow(Base):
    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("order_id", "seq"),
        partial_index("ix_events_member_id", "member_id", "event_id", where="member_id IS NOT NULL"),
    )

    written_in: Mapped[WrittenIn] = mapped_column(primary_key=True)
    event_id: Mapped[BigIntKey]
    order_id: Mapped[BigInt | None]
    seq: Mapped[int | None]
    at: Mapped[datetime]
    type: Mapped[str]
    actor: Mapped[str]
    role: Mapped[str]
    member_id: Mapped[str | None]
    from_status: Mapped[str | None]
    to_status: Mapped[str | None]
    note: Mapped[str]
    changes: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]


_EVENT_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("order_id", "seq", "member_id", "from_status", "to_status", "request_id")),
    "note": "",
    "changes": {},
}


def event_row(type_: str, at: datetime, **columns: Any) -> dict[str, Any]:
    """Return an event as a row; `seq` numbers the events of one order from 1 without gaps."""
    return _EVENT_DEFAULTS | {"type": type_, "at": at} | columns


def append_events(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    insert_rows(conn, EventRow, rows)


def events_of_order(conn: Connection, order_id: int, *, until: datetime | None = None) -> Sequence[Row[Any]]:
    query = select(EventRow).where(EventRow.order_id == order_id).order_by(EventRow.seq)
    if until is not None:
        query = query.where(EventRow.at <= until)
    return conn.execute(query).all()
