"""Which jobs were given up, and why?  Parked here they are visible and can be replayed; nothing is silently lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    select,
    text,
    update,
)

from models.schema import Instant, Json, metadata, one_of

REASONS = {
    "FAILED": "failed each time",
    "WORKER_DIED": "its worker died with it each time",
    "TOO_LONG": "ran longer than it may",
    "UNDELIVERABLE": "a letter that nobody takes",
    "IMPOSSIBLE": "cannot be done as it is",
}
"""Why a job was given up, and what is said of it."""
ERROR_LENGTH = 4000

dead_jobs = Table(
    "dead_jobs",
    metadata,
    Column("dead_job_id", BigInteger, Identity(), primary_key=True),
    Column("task", Text, nullable=False),
    Column("message_id", Text),
    Column("outbox_id", BigInteger),
    Column("arguments", Json, nullable=False),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_error", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("parked_at", Instant, nullable=False),
    Column("replayed_at", Instant),
    one_of("reason", REASONS),
    CheckConstraint("first_error <> '' AND error <> '' AND length(payload_hash) = 32", name="says_why"),
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
    first_error: str | None = None,
    reason: str = "FAILED",
    message_id: str | None = None,
    outbox_id: int | None = None,
) -> int:
    """Keep a job that failed for good; gives its id.  `first_error` where it is another than the last one, `error`."""
    error = error[:ERROR_LENGTH] or "said nothing"
    row = dead_jobs.insert().values(
        task=task,
        message_id=message_id,
        outbox_id=outbox_id,
        arguments=dict(arguments),
        payload_hash=payload_hash(arguments),
        reason=reason,
        first_error=(first_error or error)[:ERROR_LENGTH],
        error=error,
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
        park(
            conn,
            task=task,
            message_id=message_id,
            arguments=arguments,
            error=error,
            reason="IMPOSSIBLE",
            attempts=1,
            now=now,
        )


def payload_hash(arguments: Mapping[str, Any]) -> bytes:
    """By which one sees that a job is set going again with what it was parked with."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, separators=(",", ":")).encode()).digest()


def waiting(conn: Connection) -> list[Row[Any]]:
    """The jobs that wait for somebody, oldest first."""
    return list(
        conn.execute(select(dead_jobs).where(dead_jobs.c.replayed_at.is_(None)).order_by(dead_jobs.c.dead_job_id))
    )


def get(conn: Connection, dead_job_id: int) -> Row[Any] | None:
    """One parked job."""
    return conn.execute(select(dead_jobs).where(dead_jobs.c.dead_job_id == dead_job_id)).one_or_none()


def replayed(conn: Connection, dead_job_id: int, now: datetime) -> bool:
    """Note that it is set going again; gives whether it was still waiting for that."""
    waits = (dead_jobs.c.dead_job_id == dead_job_id, dead_jobs.c.replayed_at.is_(None))
    return conn.execute(update(dead_jobs).where(*waits).values(replayed_at=now)).rowcount > 0
