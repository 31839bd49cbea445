"""Reminders of unanswered cancel requests and of unused possibilities to cancel (A13, N16, N17).

Each step of the case's terms is sent once.  After an outage only the latest due step is sent.  A reminder changes
nothing about the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from policies.alerts import filer_role
from policies.cases import Alert, AlertKind, AlertState
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


def ocr_reminder_message(
    order_id: int,
    ocr_id: int,
    seller_id: str,
    filed_at: datetime,
    reason: str,
    step: ReminderStep,
    *,
    agrees_at: datetime | None,
    declines_at: datetime | None,
) -> OutboxMessage:
    return notify_member(
        Role.SELLER,
        "ocr_reminder",
        member_id=seller_id,
        order_id=order_id,
        occasion=f"{order_id}:ocr{ocr_id}:{step.number}",
        reason=reason,
        agrees_at=format_optional_timestamp(agrees_at),
        declines_at=format_optional_timestamp(declines_at),
        filed_at=format_timestamp(filed_at),
        days=step.after.days,
        last=step.next_at is None,
    )


def unlock_reminder_message(
    order_id: int,
    alert_id: int,
    filer_id: str,
    kind: AlertKind,
    *,
    npx: bool,
    since: datetime,
    step: ReminderStep,
    cancels_at: datetime | None,
) -> OutboxMessage:
    return notify_member(
        filer_role(kind),
        "unlock_reminder",
        member_id=filer_id,
        order_id=order_id,
        occasion=f"{order_id}:alert{alert_id}:{format_timestamp(since)}:{step.number}",
        kind=kind,
        penalty_accepted=npx,
        cancels_at=format_optional_timestamp(cancels_at),
        since=format_timestamp(since),
        days=step.after.days,
        last=step.next_at is None,
    )
