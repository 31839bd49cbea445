"""The transactional outbox: tasks that must follow a commit, written as rows by that commit.

The row is authoritative and the broker message only a hint: a row stays due until its consumer marks it done in the
transaction of the effect. The commit wakes the consumer, which takes every new row; the relay publishes the ids of rows
that are not done 10 s later, and again with backoff until they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, or_, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from models import dead_jobs
from models.db.arrays import is_any
from models.db.bulk import insert_rows, send_insert
from models.db.row_mapping import to_columns
from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from models.db.selects import earliest
from policies.verdicts import OutboxMessage

RELAY = "outbox.relay"
"""The task that publishes due rows."""
OUTBOX_CONSUMERS = (
    "removals.cancel_pending",
    "credits.post_to_next_invoice",
    "notices.tell_seller",
    "notices.tell_buyer",
)
REPUBLISH_INTERVAL = timedelta(seconds=10)
"""A row whose wake-up was lost is published after 10 s, 30 s and 70 s.  `requeue_after_broker_reset` handles a broker
that lost them all."""
MAX_CLAIMED_ROWS = 500
"""A consumer handles so many rows in one transaction."""
MAX_REPUBLISH_INTERVAL = timedelta(minutes=15)
MAX_ATTEMPTS = 12
"""A message whose consumer failed this often is parked in `dead_jobs`, after about an hour of backoff."""


class OutboxRow(Base):
    __tablename__ = "outbox"
    __table_args__ = (
        check_in("task", OUTBOX_CONSUMERS),
        check_in("state", ("due", "done", "dead")),
        partial_index("ix_outbox_due", "task", "due_at", "outbox_id", where="state = 'due'"),
        # Messages about credits are kept: the audit of a month reads them.  The rest is pruned (models/retention.py).
        partial_index("ix_outbox_done", "done_at", where="state = 'done' AND task <> 'credits.post_to_next_invoice'"),
    )

    outbox_id: Mapped[BigIntKey]
    key: Mapped[str] = mapped_column(unique=True)
    task: Mapped[str]
    order_id: Mapped[BigInt | None]
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(server_default="due")
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    publish_count: Mapped[int] = mapped_column(server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0")
    done_at: Mapped[datetime | None]
    first_error: Mapped[str | None]
    last_error: Mapped[str | None]


class BrokerEpochRow(Base):
    __tablename__ = "broker_epochs"

    epoch: Mapped[str] = mapped_column(primary_key=True)
    first_seen_at: Mapped[datetime]


MAX_REQUEUED = 50_000
"""Rows made due at once after a broker reset; the others become due by their own backoff."""


DueMessage = Row[Any]
"""An `OutboxRow` that is due."""
_DUE_MESSAGES = select(OutboxRow).where(OutboxRow.state == "due")


def enqueue_messages(conn: Connection, messages: Sequence[OutboxMessage], now: datetime) -> None:
    """Insert rows for whose tasks the caller sends wake-ups after the commit: they count as published once."""
    if not messages:
        return
    number = len(messages)
    columns = to_columns(messages, ("key", "task", "order_id", "payload")) | {
        "created_at": (now,) * number,
        "due_at": (now + REPUBLISH_INTERVAL,) * number,
        "publish_count": (1,) * number,
    }
    send_insert(conn, OutboxRow, columns, skip_existing=True)


_IS_NEW_ROW = and_(OutboxRow.attempts == 0, OutboxRow.publish_count > 0)
"""A wake-up was sent and no attempt failed. A row of an unlock counts as new only after the relay has published it,
because the sweep of unlocks handles it before."""


def claim_messages(
    conn: Connection, task: str, *, rows: Sequence[int] | None = None, order_id: int | None = None
) -> list[DueMessage]:
    """Lock due messages of one task, except those that are locked; return them in the order of their numbers (R103).

    `rows` limits the claim to these outbox ids; an empty list, which a wake-up has, to the new rows.
    """
    due = _DUE_MESSAGES.where(OutboxRow.task == task).order_by(OutboxRow.due_at, OutboxRow.outbox_id)
    if rows is not None:
        due = due.where(is_any(OutboxRow.outbox_id, rows) if rows else _IS_NEW_ROW)
    if order_id is not None:
        due = due.where(OutboxRow.order_id == order_id)
    claimed = conn.execute(due.limit(MAX_CLAIMED_ROWS).with_for_update(skip_locked=True))
    return sorted(claimed, key=attrgetter("outbox_id"))  # in order of commands


def new_rows(conn: Connection, task: str, *, limit: int = MAX_CLAIMED_ROWS) -> list[int]:
    query = select(OutboxRow.outbox_id).where(OutboxRow.task == task, OutboxRow.state == "due", _IS_NEW_ROW)
    return sorted(conn.execute(query.order_by(OutboxRow.due_at).limit(limit)).scalars())


def lock_by_payload(conn: Connection, task: str, field: str, values: Sequence[str]) -> list[DueMessage]:
    """Lock the due messages of one task whose payload has one of `values` in `field`; wait for other transactions."""
    due = _DUE_MESSAGES.where(OutboxRow.task == task, OutboxRow.payload[field].astext.in_(values))
    return list(conn.execute(due.order_by(OutboxRow.outbox_id).with_for_update()))


def mark_messages_done(conn: Connection, due: Sequence[DueMessage], now: datetime) -> None:
    if due:
        conn.execute(
            update(OutboxRow)
            .where(is_any(OutboxRow.outbox_id, [d.outbox_id for d in due]))
            .values(state="done", done_at=now, attempts=OutboxRow.attempts + 1)
        )


def claim_for_publish(conn: Connection, now: datetime, *, limit: int = 1000) -> dict[str, list[int]]:
    """Return the ids of the rows to publish now, by task, and postpone their next publication (doubling, capped).

    At most `limit` rows of each task.
    """
    statement = text("""
        WITH claimed AS (
            SELECT d.outbox_id FROM unnest(CAST(:tasks AS text[])) AS t (task) CROSS JOIN LATERAL (
                SELECT o.outbox_id FROM unwind.outbox AS o
                WHERE o.state = 'due' AND o.task = t.task AND o.due_at <= :now
                ORDER BY o.due_at, o.outbox_id LIMIT :limit FOR UPDATE SKIP LOCKED) AS d
        )
        UPDATE unwind.outbox AS o
        SET publish_count = o.publish_count + 1,
            due_at = CAST(:now AS timestamptz)
                + LEAST(:first * power(2, LEAST(o.publish_count, 20)), :longest) * interval '1 second'
        WHERE o.outbox_id = ANY (ARRAY(SELECT outbox_id FROM claimed))
        RETURNING o.task, o.outbox_id
    """)
    values = {
        "now": now,
        "tasks": list(OUTBOX_CONSUMERS),
        "limit": limit,
        "first": REPUBLISH_INTERVAL.total_seconds(),
        "longest": MAX_REPUBLISH_INTERVAL.total_seconds(),
    }
    ids_by_task: dict[str, list[int]] = {}
    for task, outbox_id in conn.execute(statement, values):
        ids_by_task.setdefault(task, []).append(outbox_id)
    return {task: sorted(ids) for task, ids in sorted(ids_by_task.items())}


def requeue_after_broker_reset(conn: Connection, epoch: str, now: datetime) -> int:
    """Make the rows published to a broker that lost its state due now, and return how many there were.

    `epoch` identifies the broker's present state; an epoch that was seen before changes nothing.  `publish_count` is
    kept, so a broker that loses its state every minute does not cause more than one publication a minute.
    """
    if not insert_rows(
        conn, BrokerEpochRow, [{"epoch": epoch, "first_seen_at": now}], skip_existing=True, returning="epoch"
    ):
        return 0
    published = (
        select(OutboxRow.outbox_id)
        .where(OutboxRow.state == "due", OutboxRow.publish_count > 0, OutboxRow.due_at > now)
        .limit(MAX_REQUEUED)
        .with_for_update(skip_locked=True)
    )
    return conn.execute(
        update(OutboxRow).where(OutboxRow.outbox_id.in_(published.scalar_subquery())).values(due_at=now)
    ).rowcount


first_relay_at = earliest(BrokerEpochRow.first_seen_at)
oldest_due_message = earliest(OutboxRow.created_at, "state = 'due'")


def record_outbox_failure(
    conn: Connection,
    outbox_id: int,
    error: str,
    now: datetime,
    *,
    is_final: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Count a failed attempt.  After the last one, or if it `is_final`, park the message in `dead_jobs`.

    `arguments`: those of the dead job beside the row's id.
    """
    max_attempts = 0 if is_final else MAX_ATTEMPTS
    failed = conn.execute(
        update(OutboxRow)
        .where(OutboxRow.outbox_id == outbox_id, OutboxRow.state == "due")
        .values(
            attempts=OutboxRow.attempts + 1,
            first_error=func.coalesce(OutboxRow.first_error, error[:2000]),
            last_error=error[:2000],
            state=case((OutboxRow.attempts + 1 >= max_attempts, "dead"), else_="due"),
        )
        .returning(OutboxRow.task, OutboxRow.state, OutboxRow.attempts, OutboxRow.first_error)
    ).first()
    if failed is not None and failed.state == "dead":
        dead_jobs.park_job(
            conn,
            task=failed.task,
            arguments={**(arguments or {}), "rows": [outbox_id]},
            error=error,
            first_error=failed.first_error,
            reason="IMPOSSIBLE" if is_final else "FAILED",
            attempts=failed.attempts,
            now=now,
            outbox_id=outbox_id,
        )


def requeue_messages(conn: Connection, rows: Sequence[int], now: datetime) -> None:
    conn.execute(
        update(OutboxRow)
        .where(is_any(OutboxRow.outbox_id, rows), OutboxRow.state == "dead")
        .values(state="due", attempts=0, publish_count=0, due_at=now, first_error=None, last_error=None)
    )


def tasks_due(conn: Connection, now: datetime) -> list[str]:
    rows = conn.execute(
        select(OutboxRow.task)
        .where(OutboxRow.state == "due", or_(OutboxRow.due_at <= now, _IS_NEW_ROW))
        .group_by(OutboxRow.task)
        .order_by(func.min(OutboxRow.outbox_id))
    )
    return list(rows.scalars())
