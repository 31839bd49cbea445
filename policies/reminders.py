"""When is somebody reminded, and of what?  (A13, N16, N17)

A cancel request that the seller leaves unanswered, and a cancellation that its filer could make and does not.  Each
step of the case's own terms is told once; after an outage only the latest one that is due: the earlier ones are news no
more.  A reminder changes nothing about the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from policies.alerts import filer_role
from policies.cases import Alert, AlertKind, AlertState
from policies.notices import notify_member
from policies.statuses import Role
from policies.timestamps import format_timestamp
from policies.verdicts import OutboxMessage


@dataclass(frozen=True, slots=True)
class ReminderStep:
    """The latest step that is due (numbered from 1) and when the next one is, if there is another."""

    number: int
    after: timedelta
    next_at: datetime | None


def first_reminder_at(since: datetime | None, steps: Sequence[timedelta]) -> datetime | None:
    """When the first reminder is due for something that waits since then; None when nothing waits."""
    return since + steps[0] if since is not None and steps else None


def due_step(since: datetime, steps: Sequence[timedelta], already: int, now: datetime) -> ReminderStep | None:
    """The latest step that has come (boundary inclusive) and was not told yet; earlier ones are overtaken by it."""
    come = sum(now >= since + step for step in steps)
    if come <= already:
        return None
    return ReminderStep(come, steps[come - 1], since + steps[come] if come < len(steps) else None)


def actionable_since(alert: Alert) -> datetime | None:
    """Since when the filer could cancel through this alert: since its acceptance, else its unlock; None when not."""
    if alert.state is not AlertState.OPEN:
        return None
    return alert.penalty_accepted_at if alert.penalty_stands else alert.unlocked_at


def ocr_reminder(
    order_id: int, ocr_id: int, seller_id: str, filed_at: datetime, reason: str, step: ReminderStep
) -> OutboxMessage:
    """N16: the seller is reminded of a request that nobody answered."""
    return notify_member(
        Role.SELLER,
        "ocr_reminder",
        member_id=seller_id,
        order_id=order_id,
        occasion=f"{order_id}:ocr{ocr_id}:{step.number}",
        reason=reason,
        filed_at=format_timestamp(filed_at),
        days=step.after.days,
        last=step.next_at is None,
    )


def unlock_reminder(
    order_id: int, alert_id: int, filer_id: str, kind: AlertKind, *, npx: bool, since: datetime, step: ReminderStep
) -> OutboxMessage:
    """N17: the filer is reminded that the order could be cancelled."""
    return notify_member(
        filer_role(kind),
        "unlock_reminder",
        member_id=filer_id,
        order_id=order_id,
        occasion=f"{order_id}:alert{alert_id}:{format_timestamp(since)}:{step.number}",
        kind=kind,
        penalty_accepted=npx,
        since=format_timestamp(since),
        days=step.after.days,
        last=step.next_at is None,
    )
