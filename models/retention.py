"""Pruning of old answers, submissions, outbox rows and dead letters.

Answers are kept for at least thirty days.  Only the owner of the tables may prune, by `unwind.prune_requests`, which
works in small batches; the application's role cannot delete from append-only tables.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from models.sql import read_sql

DDL: tuple[str, ...] = (
    read_sql("prune_requests"),
    "REVOKE ALL ON FUNCTION unwind.prune_requests(timestamptz, integer) FROM PUBLIC",
)


def prune(conn: Connection, older_than: datetime, batch: int = 1000) -> int:
    """Delete one batch of each kind and return how many rows were deleted.

    Raises the database's InvalidParameterValue for less than thirty days, InsufficientPrivilege for any role but the
    owner.
    """
    pruned = select(func.unwind.prune_requests(older_than, batch))
    return int(conn.execute(pruned).scalar_one())
