"""The table of notices: one row per event and recipient, with its email and the state of its delivery.

A notice is recorded by the commit that completes its outbox message. The email is sent later, is claimed with a lease,
and is retried at `next_try_at`; nothing waits for it (R102).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, Index, func, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import is_any
from models.db.bulk import insert_rows, update_rows
from models.db.row_mapping import from_row
from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from models.db.selects import earliest
from policies.emails.email import Email, email_from_json

NOTICE_STATES = ("pending", "sent", "parked")


class NoticeRow(Base):
    __tablename__ = "notices"

    notice_id: Mapped[BigIntKey]
    key: Mapped[str] = mapped_column(unique=True)
    event: Mapped[str]
    order_id: Mapped[BigInt | None]
    recipient: Mapped[str]
    role: Mapped[str]
    state: Mapped[str]
    email: Mapped[dict[str, Any]]
    message_id: Mapped[str]
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    sent_at: Mapped[datetime | None]
    first_error: Mapped[str | None]
    last_error: Mapped[str | None]

    __table_args__ = (
        check_in("state", NOTICE_STATES),
        CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_at_when_sent"),
        CheckConstraint("(state = 'pending') = (next_try_at IS NOT NULL)", name="next_try_while_pending"),
        # In the order of claims, so that a claim reads only its batch however many notices wait.
        partial_index("ix_notices_due", "attempts", "next_try_at", "notice_id", where="state = 'pending'"),
        partial_index("ix_notices_parked", "notice_id", where="state = 'parked'"),
        Index("ix_notices_order_id", "order_id"),
    )


@dataclass(frozen=True, slots=True)
class ClaimedNotice:
    """A notice leased by this worker. `attempts` counts this attempt and fences off an expired claim."""

    notice_id: int
    event: str
    order_id: int | None
    recipient: str
    email: Email
    message_id: str
    created_at: datetime
    attempts: int
    first_error: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedNoticeOutcome:
    """The result of one attempt. `next_try_at` is None unless the notice is still pending.

    `counts_as_attempt` is False when the email itself was not tried.
    """

    notice: ClaimedNotice
    state: str
    next_try_at: datetime | None = None
    error: str | None = None
    counts_as_attempt: bool = True


def insert_pending_notices(conn: Connection, rows: Sequence[dict[str, Any]], now: datetime) -> int:
    pending = {"state": "pending", "created_at": now, "next_try_at": now}
    return len(insert_rows(conn, NoticeRow, [row | pending for row in rows], skip_existing=True, returning="notice_id"))


def claim_notices(
    conn: Connection, now: datetime, *, until: datetime, limit: int, order_id: int | None = None
) -> list[ClaimedNotice]:
    """Lease pending notices that are due until `until`; the attempt is counted before the work, so crash loops end.

    New notices go before failed ones, so that one bad email delays no other.
    """
    rows = conn.execute(_CLAIM_NOTICES, {"now": now, "until": until, "limit": limit, "order_id": order_id})
    claimed = [from_row(ClaimedNotice, row, email=email_from_json(row.email)) for row in rows]
    return sorted(claimed, key=lambda c: (c.attempts, c.notice_id))


_CLAIM_NOTICES = text("""
    WITH due AS (
        SELECT notice_id FROM unwind.notices
        WHERE state = 'pending' AND next_try_at <= :now
          AND (CAST(:order_id AS bigint) IS NULL OR order_id = :order_id)
        ORDER BY attempts, next_try_at, notice_id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE unwind.notices AS n SET attempts = n.attempts + 1, next_try_at = :until
    WHERE n.notice_id = ANY (ARRAY(SELECT notice_id FROM due))
    RETURNING n.notice_id, n.event, n.order_id, n.recipient, n.email, n.message_id, n.created_at, n.attempts,
        n.first_error
""")


def record_notice_deliveries(
    conn: Connection, outcomes: Sequence[ClaimedNoticeOutcome], now: datetime
) -> list[ClaimedNoticeOutcome]:
    if not outcomes:
        return []
    pending = conn.execute(
        select(NoticeRow.notice_id, NoticeRow.attempts)
        .where(is_any(NoticeRow.notice_id, [o.notice.notice_id for o in outcomes]), NoticeRow.state == "pending")
        .order_by(NoticeRow.notice_id)
        .with_for_update()
    )
    # A claim that ran out was counted as another attempt by the worker that claimed the notice after it.
    attempts = {row.notice_id: row.attempts for row in pending}
    written = [o for o in outcomes if attempts.get(o.notice.notice_id) == o.notice.attempts]
    rows = [
        {
            "notice_id": o.notice.notice_id,
            "state": o.state,
            "next_try_at": o.next_try_at,
            "sent_at": now if o.state == "sent" else None,
            "attempts": o.notice.attempts if o.counts_as_attempt else o.notice.attempts - 1,
            "first_error": o.notice.first_error or (o.error[:2000] if o.error else None),
            "last_error": o.error[:2000] if o.error else None,
        }
        for o in written
    ]
    update_rows(conn, NoticeRow, ["notice_id"], rows)
    return written


def requeue_notice(conn: Connection, notice_id: int, now: datetime) -> bool:
    parked = update(NoticeRow).where(NoticeRow.notice_id == notice_id, NoticeRow.state == "parked")
    values = {"state": "pending", "attempts": 0, "next_try_at": now, "first_error": None}
    return conn.execute(parked.values(values)).rowcount > 0


def count_parked_notices(conn: Connection) -> int:
    return conn.execute(select(func.count()).where(NoticeRow.state == "parked")).scalar_one()


next_delivery_at = earliest(NoticeRow.next_try_at, "state = 'pending'")
