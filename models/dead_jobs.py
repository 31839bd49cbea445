"""Which jobs were given up, and why?  Parked here they are visible and can be replayed; nothing is silently lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Identity, Index, Integer, Row, Table, Text, select, text, update

from models.schema import Instant, Json, metadata

dead_jobs = Table(
    "dead_jobs",
    metadata,
    Column("dead_job_id", BigInteger, Identity(), primary_key=True),
    Column("task", Text, nullable=False),
    Column("message_id", Text),
    Column("outbox_id", BigInteger),
    Column("arguments", Json, nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("parked_at", Instant, nullable=False),
    Column("replayed_at", Instant),
    Index("ix_dead_jobs_waiting", "dead_job_id", postgresql_where=text("replayed_at IS NULL")),
)


def park(
    conn: Connection,
    *,
    task: str,
    arguments: Mapping[str, Any],
    error: str,
    attempts: int,
    now: datetime,
    message_id: str | None = None,
    outbox_id: int | None = None,
) -> int:
    """Keep a job that failed for good; gives its id."""
    row = dead_jobs.insert().values(
        task=task,
        message_id=message_id,
        outbox_id=outbox_id,
        arguments=dict(arguments),
        error=error[:4000],
        attempts=attempts,
        parked_at=now,
    )
    dead_job_id: int = conn.execute(row.returning(dead_jobs.c.dead_job_id)).scalar_one()
    return dead_job_id


def park_once(
    conn: Connection, *, task: str, message_id: str, arguments: Mapping[str, Any], error: str, now: datetime
) -> None:
    """Keep a command that nobody but staff can help, unless the same one waits already."""
    same = (dead_jobs.c.task == task, dead_jobs.c.message_id == message_id, dead_jobs.c.replayed_at.is_(None))
    if not conn.execute(select(select(dead_jobs).where(*same).exists())).scalar():
        park(conn, task=task, message_id=message_id, arguments=arguments, error=error, attempts=1, now=now)


def waiting(conn: Connection) -> list[Row[Any]]:
    """The jobs that wait for somebody, oldest first."""
    return list(
        conn.execute(select(dead_jobs).where(dead_jobs.c.replayed_at.is_(None)).order_by(dead_jobs.c.dead_job_id))
    )


def get(conn: Connection, dead_job_id: int) -> Row[Any] | None:
    """One parked job."""
    return conn.execute(select(dead_jobs).where(dead_jobs.c.dead_job_id == dead_job_id)).one_or_none()


def replayed(conn: Connection, dead_job_id: int, now: datetime) -> None:
    """Note that it was set going again."""
    conn.execute(update(dead_jobs).where(dead_jobs.c.dead_job_id == dead_job_id).values(replayed_at=now))
