"""Reminders of unanswered cancel requests and of unused possibilities to cancel (A13, N16, N17).

Each step of the case's terms is sent once.  After an outage only the latest due step is sent.  A reminder changes
nothing about the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policies.alerts import filer_role
from policies.cases import Alert, AlertState
from policies.notices import notify_member
from policies.statuses import Role
from policies.timestamps import format_optional_timestamp, format_timestamp
from policies.verdicts import OutboxMessage


@dataclass(frozen=True, slots=True)
class ReminderStep:
    number: int
    after: timedelta
    next_at: datetime | None


def first_reminder_at(since: datetime | None, steps: Sequence[timedelta]) -> datetime | None:
    return since + steps[0] if since is not None and steps else None


def due_reminder_step(since: datetime, steps: Sequence[timedelta], sent: int, now: datetime) -> ReminderStep | None:
    due = sum(now >= since + step for step in steps)
    if due <= sent:
        return None
    return ReminderStep(due, steps[due - 1], since + steps[due] if due < len(steps) else None)


def reminder_start(alert: Alert) -> datetime | None:
    """The time since which the filer can cancel: the accepted penalty, otherwise the unlock; None if neither."""
    if alert.state is not AlertState.OPEN:
        return None
    return alert.penalty_accepted_at if alert.penalty_stands else alert.unlocked_at


def remind_of_ocr(ocr: Any, step: ReminderStep) -> OutboxMessage:
    return notify_member(
        Role.SELLER,
        "ocr_reminder",
        member_id=ocr.seller_id,
        order_id=ocr.order_id,
        occasion=f"{ocr.order_id}:ocr{ocr.ocr_id}:{step.number}",
        reason=ocr.reason,
        agrees_at=format_optional_timestamp(ocr.agrees_at),
        declines_at=format_optional_timestamp(ocr.declines_at),
        filed_at=format_timestamp(ocr.filed_at),
        days=step.after.days,
        last=step.next_at is None,
    )


def remind_of_unlock(alert: Any, step: ReminderStep) -> OutboxMessage:
    since = format_timestamp(alert.since)
    return notify_member(
        filer_role(alert.kind),
        "unlock_reminder",
        member_id=alert.filer_id,
        order_id=alert.order_id,
        occasion=f"{alert.order_id}:alert{alert.alert_id}:{since}:{step.number}",
        kind=alert.kind,
        penalty_accepted=alert.penalty_stands,
        cancels_at=format_optional_timestamp(alert.cancels_at),
        since=since,
        days=step.after.days,
        last=step.next_at is None,
    )
