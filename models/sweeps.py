"""The record of each sweep: its last run, the number of rows it found, and whether it was late."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt
from models.sql import load_sql

SWEEP_LATE_AFTER = timedelta(minutes=3)
"""A gap longer than this is recorded even if the sweep found nothing.

It exceeds the longest interval of the timetable's sweeps, a minute, plus `RECORD_INTERVAL`.
"""

RECORD_INTERVAL = timedelta(seconds=15)
"""How often a sweep that finds nothing records its run; otherwise an idle installation would flush its log five times a
second. Checks of `ran_at` must allow this much more; the doctor allows a minute."""


class SweepRow(Base):
    __tablename__ = "sweeps"

    name: Mapped[str] = mapped_column(primary_key=True)
    ran_at: Mapped[datetime]
    found: Mapped[BigInt]
    found_ever: Mapped[BigInt]


class SweepHourRow(Base):
    __tablename__ = "sweep_hours"

    name: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    runs: Mapped[int]
    found: Mapped[BigInt]
    longest_gap: Mapped[timedelta | None]


_RECORD_RUN = text(load_sql("record_sweep_run"))


def record_sweep_run(conn: Connection, name: str, found: int, now: datetime) -> None:
    conn.execute(
        _RECORD_RUN, {"name": name, "now": now, "found": found, "late": SWEEP_LATE_AFTER, "often": RECORD_INTERVAL}
    )


def last_sweep_runs(conn: Connection) -> dict[str, datetime]:
    return {r.name: r.ran_at for r in conn.execute(select(SweepRow.name, SweepRow.ran_at))}
