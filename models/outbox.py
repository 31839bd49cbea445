"""What did a commit promise that has not happened yet?  One row per promise, written by the commit that made it.

The row is the truth and a message only rings the bell: a row stays due until its follower marks it done in the transaction of
the effect, and is rung again with back-off until then (reliability 0.1 no. 10, X6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    and_,
    func,
    select,
    text,
    update,
)

from models.db.bulk import insert_rows
from models.db.schema import Json, Timestamp, check_in, metadata
from policies.verdicts import OutboxMessage

REPUBLISH_INTERVAL = timedelta(seconds=10)
"""A ring that got lost alone (`forgotten` sees to a broker that lost them all) comes again after 10 s, 30 s and 70 s, so that all
is done half a minute after a fault and a promise that waits out a storm is rung for about three times (X6)."""
MAX_REPUBLISH_INTERVAL = timedelta(minutes=15)
MAX_ATTEMPTS = 12
"""A follower that failed this often is parked in `dead_jobs`; with the back-off below that is after about an hour."""

outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", BigInteger, Identity(), primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("order_id", BigInteger),
    Column("payload", Json, nullable=False),
    Column("state", Text, nullable=False, server_default="due"),
    Column("created_at", Timestamp, nullable=False),
    Column("due_at", Timestamp, nullable=False),
    Column("publish_count", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("done_at", Timestamp),
    Column("first_error", Text),
    Column("last_error", Text),
    check_in("state", ("due", "done", "dead")),
    Index("ix_outbox_due", "due_at", "outbox_id", postgresql_where=text("state = 'due'")),
    Index("ix_outbox_waiting", "task", "outbox_id", postgresql_where=text("state = 'due'")),
    Index("ix_outbox_order_id", "order_id", postgresql_where=text("state = 'due'")),
    # Promises of credits stay for the proof of the month's bills; the rest goes by age (models/retention.py).
    Index(
        "ix_outbox_done",
        "done_at",
        postgresql_where=text("state = 'done' AND task <> 'credits.post_to_next_invoice'"),
    ),
)

broker_epochs = Table(
    "broker_epochs",
    metadata,
    Column("memory", Text, primary_key=True),
    Column("known_since", Timestamp, nullable=False),
)
"""By what the broker showed that it remembers, once for each time it began anew."""
MAX_REQUEUED = 50_000
"""Rows made due at once when the broker forgot; of more than that the rest comes by its own back-off."""


@dataclass(frozen=True, slots=True)
class DueMessage:
    """One promise that waits to be kept."""

    outbox_id: int
    key: str
    task: str
    order_id: int | None
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    first_error: str | None = None


def enqueue(conn: Connection, promises: Sequence[OutboxMessage], now: datetime) -> None:
    """Write promises; one whose key exists was made before and is not made again."""
    insert_rows(
        conn,
        outbox,
        [
            {
                "key": p.key,
                "task": p.task,
                "order_id": p.order_id,
                "payload": p.payload,
                "created_at": now,
                "due_at": now,
            }
            for p in promises
        ],
        skip_existing=True,
    )


def claim(
    conn: Connection, task: str, *, rows: Sequence[int] | None = None, order_id: int | None = None, limit: int = 500
) -> list[DueMessage]:
    """Lock promises of one kind for keeping them in this transaction; those that somebody else holds are left to them.

    With `rows` those of a message that are still due; without, whatever is due of that kind, oldest first (R103).
    """
    found = and_(outbox.c.task == task, outbox.c.state == "due")
    if rows is not None:
        found = and_(found, outbox.c.outbox_id.in_(rows))
    if order_id is not None:
        found = and_(found, outbox.c.order_id == order_id)
    result = conn.execute(
        select(outbox).where(found).order_by(outbox.c.outbox_id).limit(limit).with_for_update(skip_locked=True)
    )
    return [
        DueMessage(r.outbox_id, r.key, r.task, r.order_id, r.payload, r.created_at, r.attempts, r.first_error)
        for r in result
    ]


def lock_by_payload(conn: Connection, task: str, fact: str, values: Sequence[str]) -> list[DueMessage]:
    """Lock all promises of one kind whose payload says one of `values` for `fact`, waiting for whoever is at one."""
    result = conn.execute(
        select(outbox)
        .where(outbox.c.task == task, outbox.c.state == "due", outbox.c.payload[fact].astext.in_(values))
        .order_by(outbox.c.outbox_id)
        .with_for_update()
    )
    return [
        DueMessage(r.outbox_id, r.key, r.task, r.order_id, r.payload, r.created_at, r.attempts, r.first_error)
        for r in result
    ]


def mark_done(conn: Connection, due: Sequence[DueMessage], now: datetime) -> None:
    """Mark promises as kept, by the commit that has their effect."""
    if due:
        conn.execute(
            update(outbox)
            .where(outbox.c.outbox_id.in_([d.outbox_id for d in due]))
            .values(state="done", done_at=now, attempts=outbox.c.attempts + 1)
        )


def claim_for_publish(conn: Connection, now: datetime, *, limit: int = 1000) -> dict[str, list[int]]:
    """Take the rows whose bell is to be rung now, by task, and put off their next ring (doubling, capped)."""
    ring = text(
        """
        WITH ringing AS (
            SELECT outbox_id FROM unwind.outbox WHERE state = 'due' AND due_at <= :now
            ORDER BY due_at, outbox_id LIMIT :limit FOR UPDATE SKIP LOCKED
        )
        UPDATE unwind.outbox AS o
        SET publish_count = o.publish_count + 1,
            due_at = CAST(:now AS timestamptz)
                + LEAST(:first * power(2, LEAST(o.publish_count, 20)), :longest) * interval '1 second'
        WHERE o.outbox_id = ANY (ARRAY(SELECT outbox_id FROM ringing))
        RETURNING o.task, o.outbox_id
        """
    )
    found: dict[str, list[int]] = {}
    for task, outbox_id in conn.execute(
        ring,
        {
            "now": now,
            "limit": limit,
            "first": REPUBLISH_INTERVAL.total_seconds(),
            "longest": MAX_REPUBLISH_INTERVAL.total_seconds(),
        },
    ):
        found.setdefault(task, []).append(outbox_id)
    return {task: sorted(ids) for task, ids in sorted(found.items())}


def requeue_after_broker_reset(conn: Connection, memory: str, now: datetime) -> int:
    """Have rung again at once what was rung for a broker that has forgotten it; gives how many rows that is.

    `memory` is what the broker shows now.  One that was seen before changes nothing, however late it is told.  Rings go on
    being counted, so a broker that forgets every minute is not rung more often than that (X6).
    """
    new = text(
        "INSERT INTO unwind.broker_epochs (memory, known_since) VALUES (:memory, :now) "
        "ON CONFLICT (memory) DO NOTHING RETURNING memory"
    )
    if conn.execute(new, {"memory": memory, "now": now}).first() is None:
        return 0
    rung = (
        select(outbox.c.outbox_id)
        .where(outbox.c.state == "due", outbox.c.publish_count > 0, outbox.c.due_at > now)
        .order_by(outbox.c.due_at)
        .limit(MAX_REQUEUED)
        .with_for_update(skip_locked=True)
    )
    return conn.execute(
        update(outbox).where(outbox.c.outbox_id.in_(rung.scalar_subquery())).values(due_at=now)
    ).rowcount


def first_relay_at(conn: Connection) -> datetime | None:
    """When a relay of this installation first came to a broker; None before that."""
    return conn.execute(select(func.min(broker_epochs.c.known_since))).scalar()


def record_failure(conn: Connection, rows: Sequence[int], error: str) -> dict[int, str]:
    """Count a failed attempt to keep these promises; gives those that are dead now, each with its first error."""
    result = conn.execute(
        update(outbox)
        .where(outbox.c.outbox_id.in_(rows), outbox.c.state == "due")
        .values(
            attempts=outbox.c.attempts + 1,
            first_error=func.coalesce(outbox.c.first_error, error[:2000]),
            last_error=error[:2000],
            state=text(f"CASE WHEN attempts + 1 >= {MAX_ATTEMPTS} THEN 'dead' ELSE 'due' END"),
        )
        .returning(outbox.c.outbox_id, outbox.c.state, outbox.c.first_error)
    )
    return {row.outbox_id: row.first_error for row in result if row.state == "dead"}


def mark_dead(conn: Connection, rows: Sequence[int], error: str) -> None:
    """These promises can never be kept as they are: no more rings; the follower parks them in `dead_jobs`."""
    conn.execute(
        update(outbox)
        .where(outbox.c.outbox_id.in_(rows), outbox.c.state == "due")
        .values(
            attempts=outbox.c.attempts + 1,
            first_error=func.coalesce(outbox.c.first_error, error[:2000]),
            last_error=error[:2000],
            state="dead",
        )
    )


def requeue(conn: Connection, rows: Sequence[int], now: datetime) -> None:
    """Promises that were given up are due again, as if they had just been made."""
    conn.execute(
        update(outbox)
        .where(outbox.c.outbox_id.in_(rows), outbox.c.state == "dead")
        .values(state="due", attempts=0, publish_count=0, due_at=now, first_error=None, last_error=None)
    )


def oldest_due(conn: Connection) -> datetime | None:
    """When the oldest promise that is not kept was made."""
    return conn.execute(select(func.min(outbox.c.created_at)).where(outbox.c.state == "due")).scalar()


def tasks_due(conn: Connection, now: datetime) -> list[str]:
    """The kinds of promises that are due, in the order in which the oldest of each was made."""
    rows = conn.execute(
        select(outbox.c.task)
        .where(outbox.c.state == "due", outbox.c.due_at <= now)
        .group_by(outbox.c.task)
        .order_by(func.min(outbox.c.outbox_id))
    )
    return list(rows.scalars())
