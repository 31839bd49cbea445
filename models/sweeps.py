"""The record of each sweep: its last run, the number of rows it found, and whether it was late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt

NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""Before every row: the start of a keyset scan."""
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
    found_at: Mapped[datetime | None]


class SweepHourRow(Base):
    __tablename__ = "sweep_hours"

    name: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    runs: Mapped[int]
    found: Mapped[BigInt]
    longest_gap: Mapped[timedelta | None]


_RECORD_RUN = text(
    """
    WITH before AS (
        SELECT ran_at FROM unwind.sweeps WHERE name = :name
    ), noted AS (
        INSERT INTO unwind.sweep_hours AS h (name, hour, runs, found, longest_gap)
        SELECT :name, date_trunc('hour', CAST(:now AS timestamptz), 'UTC'), 1, :found, g.gap
        FROM (SELECT CASE WHEN :now - ran_at > :late THEN :now - ran_at END AS gap
              FROM (SELECT max(ran_at) AS ran_at FROM before) AS b) AS g
        WHERE :found > 0 OR g.gap IS NOT NULL
        ON CONFLICT (name, hour) DO UPDATE SET runs = h.runs + 1, found = h.found + excluded.found,
            longest_gap = GREATEST(h.longest_gap, excluded.longest_gap)
    )
    INSERT INTO unwind.sweeps AS s (name, ran_at, found, found_ever, found_at)
    SELECT :name, :now, :found, :found, CASE WHEN :found > 0 THEN CAST(:now AS timestamptz) END
    WHERE :found > 0 OR NOT EXISTS (
        SELECT FROM unwind.sweeps l WHERE l.name = :name AND l.found = 0
        AND l.ran_at BETWEEN CAST(:now AS timestamptz) - CAST(:often AS interval) AND :now)
    ON CONFLICT (name) DO UPDATE SET ran_at = :now, found = :found, found_ever = s.found_ever + :found,
        found_at = CASE WHEN :found > 0 THEN :now ELSE s.found_at END
    """
)


def record_sweep_run(conn: Connection, name: str, found: int, now: datetime) -> None:
    conn.execute(
        _RECORD_RUN, {"name": name, "now": now, "found": found, "late": SWEEP_LATE_AFTER, "often": RECORD_INTERVAL}
    )


def last_sweep_runs(conn: Connection) -> dict[str, datetime]:
    return {r.name: r.ran_at for r in conn.execute(select(SweepRow.name, SweepRow.ran_at))}
