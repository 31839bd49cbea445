"""Who is told what, and in which words?  (rules.md 9; N1 to N18)"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from policies.cases import Case
from policies.statuses import Role
from policies.timestamps import format_timestamp
from policies.verdicts import OutboxMessage


def notify_party(case: Case, to: Role, notice: str, **facts: Any) -> OutboxMessage:
    """The promise to tell one party of the event being written now; the key makes it one per (event, recipient)."""
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
    """The same for a notice that is not about one case: `occasion` names the event once and for ever."""
    return OutboxMessage(
        task="notices.tell_seller" if to is Role.SELLER else "notices.tell_buyer",
        key=f"{notice}:{occasion}:{member_id}",
        order_id=order_id,
        payload={"event": notice, "recipient": member_id, "role": to, "facts": facts},
    )


DELIVERY_LEASE = timedelta(minutes=10)
"""How long one worker may take for a round of letters before another one tries them again."""

RETRY_DELAYS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 120, 240, 480, 480, 480, 480))
"""Growing waits between tries: a mail server may be away for a night and a working day and everything arrives."""


def next_retry_at(attempts: int, now: datetime) -> datetime | None:
    """When a letter that was not taken is tried again, after that many attempts; None when it is given up."""
    return now + RETRY_DELAYS[attempts - 1] if attempts <= len(RETRY_DELAYS) else None


def message_id(key: str, written_at: datetime) -> str:
    """The left side of the Message-ID: one per (event, recipient) of one installation, the same at every try (I12)."""
    return hashlib.sha256(f"{key} {format_timestamp(written_at)}".encode()).hexdigest()[:32]
