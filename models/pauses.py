"""Pauses of queues and tasks: workers take nothing of them until they are resumed.

They are rows because workers ignore remote control; each worker reads those in effect every second
(`workers/transport/pausing.py`).  A pause that is over stays as a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, Index, Row, text
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigIntKey, check_in
from models.submissions import CHANNEL

KINDS = ("queue", "task")
MAX_REASON_LENGTH = 500


class PauseRow(Base):
    """A pause of a queue or task; in effect until `until` or `resumed_at`."""

    __tablename__ = "pauses"
    __table_args__ = (
        check_in("kind", KINDS),
        CheckConstraint("until > paused_at AND resumed_at >= paused_at", name="in_order"),
        Index("ix_pauses_open", "kind", "name", unique=True, postgresql_where=text("resumed_at IS NULL")),
    )

    pause_id: Mapped[BigIntKey]
    kind: Mapped[str]
    name: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    paused_at: Mapped[datetime]
    until: Mapped[datetime | None]
    resumed_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class PausedNames:
    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


def pause(
    conn: Connection, kind: str, name: str, now: datetime, *, until: datetime | None = None, reason: str = ""
) -> None:
    values = {"kind": kind, "name": name, "now": now, "until": until, "reason": reason[:MAX_REASON_LENGTH]}
    end_expired = text(
        "UPDATE unwind.pauses SET resumed_at = until "
        "WHERE kind = :kind AND name = :name AND resumed_at IS NULL AND until <= :now"
    )
    conn.execute(end_expired, values)
    conn.execute(
        text(
            """
            INSERT INTO unwind.pauses (kind, name, reason, paused_at, until)
            VALUES (:kind, :name, :reason, :now, :until)
            ON CONFLICT (kind, name) WHERE resumed_at IS NULL DO UPDATE SET until = :until, reason = :reason
            """
        ),
        values,
    )


def resume(conn: Connection, kind: str, name: str, now: datetime) -> bool:
    ended = conn.execute(
        text(
            "UPDATE unwind.pauses SET resumed_at = GREATEST(:now, paused_at) "
            "WHERE kind = :kind AND name = :name AND resumed_at IS NULL "
            "AND (until IS NULL OR until > :now)"
        ),
        {"kind": kind, "name": name, "now": now},
    )
    conn.execute(text(f"SELECT pg_notify('{CHANNEL}', '')"))  # so that waiting submissions are taken at once
    return ended.rowcount > 0


def list_in_effect(conn: Connection, now: datetime) -> list[Row[Any]]:
    statement = text(
        "SELECT kind, name, reason, paused_at, until FROM unwind.pauses "
        "WHERE resumed_at IS NULL AND (until IS NULL OR until > :now) ORDER BY pause_id"
    )
    return list(conn.execute(statement, {"now": now}))


def paused_names(conn: Connection, now: datetime) -> PausedNames:
    rows = list_in_effect(conn, now)
    return PausedNames(
        frozenset(row.name for row in rows if row.kind == "queue"),
        frozenset(row.name for row in rows if row.kind == "task"),
    )
