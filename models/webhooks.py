"""Webhooks: endpoints that receive the events of the feed, each in order and at least once.

Each endpoint has its own cursor in the feed, so a slow or failing one holds back no other. A run leases the
endpoints that are due, sends without a transaction, and records how far it came; its lease is the fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import CheckConstraint, Connection, Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models import feed
from models.db.arrays import is_any
from models.db.row_mapping import from_row
from models.db.schema import Base, BigInt, BigIntKey, partial_index
from policies.texts import has_blank_or_control

WEBHOOK_LEASE = timedelta(minutes=2)
EVENTS_PER_DELIVERY = 50
"""Events of one endpoint in one run."""
MAX_ENDPOINTS = 20
"""Endpoints of one run."""
FIRST_WEBHOOK_RETRY, MAX_WEBHOOK_RETRY = timedelta(seconds=5), timedelta(hours=3)
GIVE_UP_WEBHOOK_AFTER = timedelta(days=3)
MAX_ERROR_LENGTH = 200


class WebhookRow(Base):
    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("(failing_since IS NULL) = (failures = 0)", name="failing_since_the_first_failure"),
        partial_index("ix_webhooks_due", "next_try_at", where="disabled_at IS NULL AND removed_at IS NULL"),
    )

    webhook_id: Mapped[BigIntKey]
    url: Mapped[str]
    secret: Mapped[str]
    event_types: Mapped[str]
    """Separated by commas."""
    cursor: Mapped[str]
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]
    delivered: Mapped[BigInt] = mapped_column(server_default="0")
    delivered_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default="0")
    failing_since: Mapped[datetime | None]
    last_error: Mapped[str | None]
    disabled_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    webhook_id: int
    url: str
    secret: str
    leased_until: datetime
    cursor: str
    events: Sequence[tuple[str, dict[str, Any]]]
    """Cursor and event of those that it wants, in order."""
    read_to: str
    """The cursor of the last event read, wanted or not."""
    page_was_full: bool


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    endpoint: Endpoint
    cursor: str
    delivered: int
    error: str | None = None
    is_gone: bool = False


def check_webhook_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError("must look like https://host/path, without a login")
    if not url.isascii() or has_blank_or_control(url) or len(url) > 2000:
        raise ValueError("must be at most 2000 printable ASCII characters")
    _ = parts.port  # raises for a port that is no number
    return url


def add_webhook(conn: Connection, url: str, secret: str, event_types: Sequence[str], now: datetime) -> int:
    values = {"url": url, "secret": secret, "event_types": ",".join(event_types), "created_at": now, "next_try_at": now}
    added = insert(WebhookRow).values(cursor=feed.feed_end_cursor(conn), **values).returning(WebhookRow.webhook_id)
    return int(conn.execute(added).scalar_one())


def list_webhooks(conn: Connection) -> list[Row[Any]]:
    return list(conn.execute(select(WebhookRow).where(WebhookRow.removed_at.is_(None)).order_by(WebhookRow.webhook_id)))


def remove_webhook(conn: Connection, webhook_id: int, now: datetime) -> bool:
    return _change_webhook(conn, webhook_id, removed_at=now)


def replay_webhook(conn: Connection, webhook_id: int, cursor: str | None, now: datetime) -> bool:
    """Send again from after `cursor` (None: where it stands), even to a disabled endpoint."""
    cleared = {"failures": 0, "failing_since": None, "last_error": None, "disabled_at": None, "leased_until": None}
    position = {} if cursor is None else {"cursor": cursor}
    return _change_webhook(conn, webhook_id, next_try_at=now, **cleared, **position)


def _change_webhook(conn: Connection, webhook_id: int, **values: Any) -> bool:
    known = (WebhookRow.webhook_id == webhook_id, WebhookRow.removed_at.is_(None))
    changed = update(WebhookRow).where(*known).values(**values).returning(WebhookRow.webhook_id)
    return conn.execute(changed).scalar() is not None


def lease_endpoints(conn: Connection, now: datetime) -> list[Endpoint]:
    due = (
        select(WebhookRow.webhook_id)
        .where(
            WebhookRow.disabled_at.is_(None),
            WebhookRow.removed_at.is_(None),
            WebhookRow.next_try_at <= now,
            or_(WebhookRow.leased_until.is_(None), WebhookRow.leased_until <= now),
        )
        .order_by(WebhookRow.next_try_at, WebhookRow.webhook_id)
        .limit(MAX_ENDPOINTS)
        .with_for_update(skip_locked=True)
    )
    webhook_ids = conn.execute(due).scalars()
    leased = update(WebhookRow).where(is_any(WebhookRow.webhook_id, webhook_ids))
    leased = leased.values(leased_until=now + WEBHOOK_LEASE)
    return [_endpoint_from_row(conn, row) for row in conn.execute(leased.returning(WebhookRow)).all()]


def _endpoint_from_row(conn: Connection, row: Any) -> Endpoint:
    page = feed.events_after(conn, row.cursor, EVENTS_PER_DELIVERY)
    wanted = [(cursor, event) for cursor, event in page if webhook_wants(event["type"], row.event_types.split(","))]
    read_to = page[-1][0] if page else row.cursor
    was_full = len(page) == EVENTS_PER_DELIVERY
    return from_row(Endpoint, row, events=wanted, read_to=read_to, page_was_full=was_full)


def webhook_wants(event_type: str, patterns: Sequence[str]) -> bool:
    """Return whether a type is one of `patterns`: a type, the beginning of types (`npb.*`), or `*`."""
    return any(event_type == p or (p.endswith("*") and event_type.startswith(p[:-1])) for p in patterns)


def record_webhook_delivery(conn: Connection, delivery: WebhookDelivery, now: datetime) -> None:
    """Record how far a run came, unless its lease was taken over; disable the endpoint after three days of failures."""
    endpoint = delivery.endpoint
    own = (WebhookRow.webhook_id == endpoint.webhook_id, WebhookRow.leased_until == endpoint.leased_until)
    row = conn.execute(
        select(WebhookRow.failures, WebhookRow.failing_since).where(*own).with_for_update()
    ).one_or_none()
    if row is None:
        return
    values: dict[str, Any] = {"cursor": delivery.cursor, "leased_until": None}
    if delivery.delivered:
        values |= {"delivered": WebhookRow.delivered + delivery.delivered, "delivered_at": now}
    if delivery.error is None:
        values |= {"failures": 0, "failing_since": None, "last_error": None, "next_try_at": now}
    else:
        failures = 1 if delivery.delivered else row.failures + 1
        since = now if delivery.delivered else row.failing_since or now
        wait = min(MAX_WEBHOOK_RETRY, FIRST_WEBHOOK_RETRY * 2 ** min(failures - 1, 20))
        gives_up = delivery.is_gone or now - since >= GIVE_UP_WEBHOOK_AFTER
        values |= {"failures": failures, "failing_since": since, "last_error": delivery.error[:MAX_ERROR_LENGTH]}
        values |= {"next_try_at": now + wait, "disabled_at": now if gives_up else None}
    conn.execute(update(WebhookRow).where(*own).values(**values))
