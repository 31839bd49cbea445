"""The table of pauses of queues and tasks: workers take nothing from them until they are resumed.

They are rows because workers ignore remote control; each worker reads those in effect every second
(`workers/transport/pausing.py`).  A pause that is over stays as a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, Connection, Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigIntKey, check_in, partial_index
from models.submissions import CHANNEL

MAX_REASON_LENGTH = 500


class PauseRow(Base):
    __tablename__ = "pauses"
    __table_args__ = (
        check_in("kind", ("queue", "task")),
        CheckConstraint("until > paused_at AND resumed_at >= paused_at", name="in_order"),
        partial_index("ix_pauses_open", "kind", "name", unique=True, where="resumed_at IS NULL"),
    )

    pause_id: Mapped[BigIntKey]
    kind: Mapped[str]
    name: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    paused_at: Mapped[datetime]
    until: Mapped[datetime | None]
    resumed_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class StoredPauses:
    queues: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()


def pause(
    conn: Connection, kind: str, name: str, now: datetime, *, until: datetime | None = None, reason: str = ""
) -> None:
    expired = (PauseRow.kind == kind, PauseRow.name == name, PauseRow.resumed_at.is_(None), PauseRow.until <= now)
    conn.execute(update(PauseRow).where(*expired).values(resumed_at=PauseRow.until))
    values = {"until": until, "reason": reason[:MAX_REASON_LENGTH]}
    conn.execute(
        insert(PauseRow)
        .values(kind=kind, name=name, paused_at=now, **values)
        .on_conflict_do_update(
            index_elements=[PauseRow.kind, PauseRow.name], index_where=PauseRow.resumed_at.is_(None), set_=values
        )
    )


def resume(conn: Connection, kind: str, name: str, now: datetime) -> bool:
    paused = (PauseRow.kind == kind, PauseRow.name == name, *pause_in_effect_conditions(now))
    ended = conn.execute(update(PauseRow).where(*paused).values(resumed_at=func.greatest(now, PauseRow.paused_at)))
    conn.execute(select(func.pg_notify(CHANNEL, "")))  # waiting commands by SQL are executed at once
    return ended.rowcount > 0


def list_pauses_in_effect(conn: Connection, now: datetime) -> list[Row[Any]]:
    return list(conn.execute(select(PauseRow).where(*pause_in_effect_conditions(now)).order_by(PauseRow.pause_id)))


def pause_in_effect_conditions(now: datetime | ColumnElement[datetime]) -> tuple[ColumnElement[bool], ...]:
    return PauseRow.resumed_at.is_(None), or_(PauseRow.until.is_(None), PauseRow.until > now)


def load_pauses(conn: Connection, now: datetime) -> StoredPauses:
    rows = list_pauses_in_effect(conn, now)
    return StoredPauses(
        frozenset(row.name for row in rows if row.kind == "queue"),
        frozenset(row.name for row in rows if row.kind == "task"),
    )
