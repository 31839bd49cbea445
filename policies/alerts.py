"""What all alerts share: filing, unlocking and removal (R36 to R44, R49)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from policies.cases import Actor, Alert, AlertKind, AlertState, Case, OcrState
from policies.copies import replace
from policies.members import remove_strike
from policies.notices import notify_party
from policies.preconditions import check_comment, check_role
from policies.statuses import ALERT_BLOCKING_STATUSES, ALERT_LABELS, Role, Status, counterparty
from policies.timestamps import describe_timestamp, format_timestamp
from policies.verdicts import Code, Event, Granted, Refused

UNLOCK_EVENTS = tuple(f"{kind.lower()}.unlocked" for kind in AlertKind)
"""Unlocks of alerts only record the passage of time: a command with an earlier time may still follow them."""


def filer_role(kind: str) -> Role:
    return Role.SELLER if kind == AlertKind.NPB else Role.BUYER


def accused_role(kind: str) -> Role:
    return counterparty(filer_role(kind))


def check_may_file_alert(case: Case, kind: AlertKind, actor: Actor, now: datetime) -> Refused | None:
    if refused := check_role(case, actor, filer_role(kind), act=f"file a {ALERT_LABELS[kind]}"):
        return refused
    order = case.order
    if order.status in ALERT_BLOCKING_STATUSES:
        return Refused(
            Code.ORDER_HAS_PROBLEM,
            f"{case.label.capitalize()} is already in {order.status}; one alert at a time.",
            unblocked_by="the open alert being removed",
        )
    wait = case.terms.npb_file_after if kind is AlertKind.NPB else case.terms.seller_alert_file_after
    earliest = order.order_date + wait
    if now < earliest:
        return Refused(
            Code.TOO_EARLY,
            f"The order was last submitted or updated on {describe_timestamp(order.order_date)}; "
            f"a {ALERT_LABELS[kind]} can be filed from {describe_timestamp(earliest)}.",
            possible_from=earliest,
            unblocked_by="time alone",
        )
    return None


def file_alert(
    case: Case,
    kind: AlertKind,
    comment: str | None,
    now: datetime,
    *,
    note: str,
    notice: str,
    facts: Mapping[str, Any],
    grounds: str | None = None,
) -> Granted:
    """File an alert that `check_may_file_alert` allows, and tell the accused party."""
    terms, order, superseded = case.terms, case.order, case.open_ocr
    is_npb = kind is AlertKind.NPB
    alert = Alert(
        kind=kind,
        filed_at=now,
        unlocks_at=now + (terms.npb_unlock_no_response if is_npb else terms.seller_alert_unlock),
        terms=terms,
        grounds=grounds,
        comment=comment,
        previous_status=order.status,
    )
    filed = replace(
        case,
        order=replace(order, previous_status=None, npb_filed_at=now if is_npb else order.npb_filed_at),
        ocr=replace(superseded, state=OcrState.SUPERSEDED, closed_at=now) if superseded else case.ocr,
    )
    event = Event(f"{kind.lower()}.filed", note)
    return change_alert(filed, alert, event, accused_role(kind), notice, status=Status(kind), comment=comment, **facts)


def change_alert(
    case: Case, alert: Alert, event: Event, to: Role, notice: str, *, status: Status | None = None, **facts: Any
) -> Granted:
    """Grant a change of the alert, and of the order's status if one is given, and notify a party of its deadline."""
    due = format_timestamp(alert.unlocks_at)
    after, effects = replace(case, alert=alert), {"unlocks_at": due}
    if status is not None:
        after, effects = replace(after, order=replace(case.order, status=status)), {"status": status} | effects
    return Granted(
        after, event=event, messages=(notify_party(after, to, notice, unlocks_at=due, **facts),), effects=effects
    )


def drop_later_alert_unlock(case: Case, at: datetime) -> Case:
    """After a command at `at`, drop the unlock of a sweep that ran later in time but before the command.

    The unlock stays if the alert had matured anyway, and goes if it was answered, accepted or closed first.
    """
    alert = case.alert
    if alert is None or alert.unlocked_at is None or alert.unlocked_at <= at:
        return case
    if alert.state is AlertState.OPEN and not alert.penalty_stands and alert.unlocks_at <= alert.unlocked_at:
        return case
    return replace(case, alert=replace(alert, unlocked_at=None))


UNLOCKED_NOTE = "Cancellation through the alert is possible now."


def remove_alert(case: Case, kind: AlertKind, actor: Actor, comment: str | None, now: datetime) -> Granted | Refused:
    """T11, T16: remove an alert; the order becomes PENDING, whatever it was before (R36, R49).

    Staff can also remove an alert that a cancellation completed: the order stays cancelled, the strike is withdrawn.
    """
    filer = filer_role(kind)
    alert = case.alert if case.alert is not None and case.alert.kind is kind else None
    completed = alert is not None and alert.state is AlertState.COMPLETED and case.role_of(actor) is Role.STAFF
    if alert is not None and alert.state is AlertState.REMOVED and case.role_of(actor) is Role.STAFF:
        return no_open_alert(case, kind)
    if not completed and (refused := check_role(case, actor, filer, Role.STAFF, act=f"remove a {ALERT_LABELS[kind]}")):
        return refused
    if alert is None or alert.state not in (AlertState.OPEN, AlertState.COMPLETED):
        return no_open_alert(case, kind)
    if refused := check_comment(comment):
        return refused
    removed = replace(alert, state=AlertState.REMOVED, closed_at=now)
    order = case.order if completed else replace(case.order, status=Status.PENDING, previous_status=None)
    after = replace(case, order=order, alert=removed)
    if completed:
        accused = accused_role(kind)
        forgiven = remove_strike(case.member(accused), accused, order.order_id, case.terms)
        after = after.with_member(accused, forgiven)
    why = f": {comment}" if comment else "."
    note = f"The {ALERT_LABELS[kind]} is removed{why}" + (" The strike is withdrawn." if completed else "")
    facts = {"kind": kind, "comment": comment, "by": case.role_of(actor), "was_completed": completed}
    return Granted(
        after,
        event=Event(f"{kind.lower()}.removed", note),
        messages=(notify_party(after, accused_role(kind), "alert_removed", **facts),),
        effects={"status": order.status, "strike_withdrawn": completed},
    )


def no_open_alert(case: Case, kind: AlertKind) -> Refused:
    removed = case.alert is not None and case.alert.kind is kind and case.alert.state is AlertState.REMOVED
    return Refused(
        Code.NO_OPEN_ALERT,
        f"The {ALERT_LABELS[kind]} of {case.label} was removed already."
        if removed
        else f"No {ALERT_LABELS[kind]} is open for {case.label}.",
        unblocked_by=f"the {filer_role(kind)} filing a {ALERT_LABELS[kind]}",
    )


def require_open_alert(case: Case, kind: AlertKind, actor: Actor, *allowed: Role, act: str) -> Alert | Refused:
    if refused := check_role(case, actor, *allowed, act=act):
        return refused
    alert = case.open_alert
    if alert is None or alert.kind is not kind:
        return no_open_alert(case, kind)
    return alert
