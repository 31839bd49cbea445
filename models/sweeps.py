"""When was each sweep last seen to work?  Judged by effect, because a silent beat still answers pings (reliability X8)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, Connection, Table, Text, select, text

from models.schema import Instant, metadata

sweeps = Table(
    "sweeps",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ran_at", Instant, nullable=False),
    Column("found", BigInteger, nullable=False),
    Column("found_ever", BigInteger, nullable=False),
    Column("found_at", Instant),
)


def ran(conn: Connection, name: str, found: int, now: datetime) -> None:
    """Note that a sweep came to its end, and what it found."""
    conn.execute(
        text(
            "INSERT INTO unwind.sweeps AS s (name, ran_at, found, found_ever, found_at) "
            "VALUES (:name, :now, :found, :found, CASE WHEN :found > 0 THEN CAST(:now AS timestamptz) END) "
            "ON CONFLICT (name) DO UPDATE SET ran_at = :now, found = :found, found_ever = s.found_ever + :found, "
            "found_at = CASE WHEN :found > 0 THEN :now ELSE s.found_at END"
        ),
        {"name": name, "now": now, "found": found},
    )


def last_runs(conn: Connection) -> dict[str, datetime]:
    """When each sweep last came to its end, by name."""
    return {r.name: r.ran_at for r in conn.execute(select(sweeps.c.name, sweeps.c.ran_at))}
