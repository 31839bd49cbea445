"""The outbox messages that notify members, and when an undelivered email is retried (N1 to N22)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from policies.cases import Case
from policies.statuses import Role
from policies.verdicts import OutboxMessage


def notify_party(case: Case, to: Role, notice: str, **facts: Any) -> OutboxMessage:
    return notify_member(
        to,
        notice,
        member_id=case.member(to).member_id,
        order_id=case.order.order_id,
        occasion=f"{case.order.order_id}:{case.order.version + 1}",
        **facts,
    )


def notify_member(
    to: Role, notice: str, *, member_id: str, order_id: int | None, occasion: str, **facts: Any
) -> OutboxMessage:
    """Build the message that notifies one member; `occasion` identifies the event."""
    return OutboxMessage(
        task="notices.tell_seller" if to is Role.SELLER else "notices.tell_buyer",
        key=f"{notice}:{occasion}:{member_id}",
        order_id=order_id,
        payload={"event": notice, "recipient": member_id, "role": to, "facts": facts},
    )


DELIVERY_LEASE = timedelta(minutes=10)
"""Time a worker has to send a batch of emails before another worker may claim them."""

EMAIL_RETRY_DELAYS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 120, 240, 480, 480, 480, 480))
"""Delays between attempts: emails survive a mail server that is down for a night and a working day."""


def next_retry_at(attempts: int, now: datetime) -> datetime | None:
    return now + EMAIL_RETRY_DELAYS[attempts - 1] if attempts <= len(EMAIL_RETRY_DELAYS) else None
