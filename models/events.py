"""What happened?  An append-only row per change: who, what, from, to, when, why, under which request (R100)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    Row,
    Table,
    Text,
    UniqueConstraint,
    select,
    text,
)

from models.db.bulk import insert_rows
from models.db.schema import Json, Timestamp, metadata, written_in

events = Table(
    "events",
    metadata,
    Column("event_id", BigInteger, Identity(), primary_key=True),
    Column("order_id", BigInteger),
    Column("seq", Integer),
    Column("at", Timestamp, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("member_id", Text),
    Column("from_status", Text),
    Column("to_status", Text),
    Column("note", Text, nullable=False),
    Column("changes", Json, nullable=False),
    Column("request_id", Text),
    written_in(),
    UniqueConstraint("order_id", "seq"),
    Index("ix_events_written_in", "written_in", "event_id"),
    Index("ix_events_member_id", "member_id", "event_id", postgresql_where=text("member_id IS NOT NULL")),
)


def event_row(
    type_: str,
    at: datetime,
    *,
    actor: str,
    role: str,
    order_id: int | None = None,
    seq: int | None = None,
    member_id: str | None = None,
    from_status: str | None = None,
    to_status: str | None = None,
    note: str = "",
    changes: dict[str, Any] | None = None,
    request_id: str | None = None,
) -> dict[str, Any]:
    """One event as a row; `seq` numbers the events of one order 1..n without a gap."""
    return {
        "order_id": order_id,
        "seq": seq,
        "at": at,
        "type": type_,
        "actor": actor,
        "role": role,
        "member_id": member_id,
        "from_status": from_status,
        "to_status": to_status,
        "note": note,
        "changes": changes or {},
        "request_id": request_id,
    }


def append(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write events."""
    insert_rows(conn, events, rows)


def of_order(conn: Connection, order_id: int, *, until: datetime | None = None) -> Sequence[Row[Any]]:
    """The events of one order in their order, up to and including `until`."""
    found = select(events).where(events.c.order_id == order_id).order_by(events.c.seq)
    if until is not None:
        found = found.where(events.c.at <= until)
    return conn.execute(found).all()
