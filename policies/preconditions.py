"""Checks shared by commands: the order exists, `occurred_at` is possible, a party or staff, not cancelled, the role."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from policies.cases import Actor, Case
from policies.statuses import PROBLEM, Role, Status
from policies.texts import is_visible
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Invalid, Refused

MAX_OCCURRENCE_AGE = timedelta(hours=24)
"""Oldest accepted `occurred_at`: a message may have waited that long in a queue."""


def order_unknown(order_id: int) -> Refused:
    return Refused(Code.ORDER_UNKNOWN, f"There is no order {order_id}.", unblocked_by="the order being submitted")


def effective_time(
    case: Case, occurred_at: datetime | None, accepted_at: datetime | None, now: datetime
) -> datetime | Invalid:
    """Return when the command takes effect: now or its `occurred_at`, never before the order's last event.

    Events of sweeps don't count: an answer that was in time stays so, even if a sweep marked the alert before it was
    read.  `accepted_at` is when a submission by SQL was inserted.
    """
    last = case.order.last_event_at or now
    if occurred_at is None:
        return max(min(accepted_at or now, now), last)
    if occurred_at > now:
        return Invalid("occurred_at", "must not be in the future")
    if occurred_at < now - MAX_OCCURRENCE_AGE:
        return Invalid("occurred_at", "must not be more than 24 hours ago")
    if occurred_at < last:
        return Invalid(
            "occurred_at", f"must not be before the order's last event, which was at {format_timestamp(last)}"
        )
    return occurred_at


def check_party(case: Case, actor: Actor) -> Refused | None:
    if case.role_of(actor) is None:
        return Refused(Code.NOT_A_PARTY, f"This member is neither the buyer nor the seller of {case.label}.")
    return None


def check_not_cancelled(case: Case) -> Refused | None:
    if case.order.status is Status.CANCELLED:
        return Refused(
            Code.ALREADY_CANCELLED,
            f"{case.label.capitalize()} is cancelled, and a cancelled order is never reinstated.",
        )
    return None


def check_no_problem(case: Case, consequence: str) -> Refused | None:
    if case.order.status not in PROBLEM:
        return None
    return Refused(
        Code.ORDER_HAS_PROBLEM,
        f"{case.label.capitalize()} is in {case.order.status}; {consequence}.",
        unblocked_by="the open request or alert being closed",
    )


def check_status(case: Case, allowed: Sequence[Status], act: str) -> Refused | None:
    """Check the order's status; `act` completes "Order 1003 is SHIPPED; …" before the allowed ones."""
    if case.order.status in allowed:
        return None
    names = ", ".join(allowed)
    return Refused(
        Code.WRONG_STATUS,
        f"{case.label.capitalize()} is {case.order.status}; {act} {names}.",
        unblocked_by=f"the order being in one of {names}",
    )


def check_role(case: Case, actor: Actor, *allowed: Role, act: str, may_be_cancelled: bool = False) -> Refused | None:
    """Check party, order and role, in this order; `act` completes "can …" in the refusal."""
    if refused := check_party(case, actor) or (None if may_be_cancelled else check_not_cancelled(case)):
        return refused
    if case.role_of(actor) not in allowed:
        names = " or ".join("staff" if role is Role.STAFF else f"the {role}" for role in allowed)
        return Refused(Code.WRONG_ROLE, f"Only {names} can {act}.", unblocked_by=f"{names} doing it")
    return None


def check_comment(comment: str | None) -> Refused | None:
    if comment is not None and not is_visible(comment):
        return Refused(Code.COMMENT_REQUIRED, "Please add a comment: it must say something.", unblocked_by="a comment")
    return None
