"""Non-paying buyer alerts: filing, answering, accepting the penalty and withdrawing acceptance (R19 to R44).

`unlocks_at` is computed when an alert is filed or answered, stored, and from then on only compared with the clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from policies.alerts import change_alert, check_may_file_alert, file_alert, require_open_alert
from policies.automation import automation_cancel_facts
from policies.cases import Actor, Alert, AlertKind, Case
from policies.notices import notify_party
from policies.preconditions import check_comment
from policies.statuses import ALERT_LABELS, Role, Status
from policies.timestamps import describe_timestamp, format_timestamp
from policies.verdicts import Code, Event, Granted, Invalid, Refused

MAX_NPB_EXTENSION = timedelta(days=30)


def npb_unlocks_at(alert: Alert) -> datetime:
    """The time from which the seller can cancel through this alert.

    One week without an answer, two weeks with one.  An answer after the first week does not re-lock (A1, A2) unless the
    terms say `relock`.  More time that the seller gives counts if it is later (R122).  An accepted penalty unlocks at
    once.
    """
    terms = alert.terms
    week = alert.filed_at + terms.npb_unlock_no_response
    due = week
    if alert.responded_at is not None and (alert.responded_at < week or terms.npb_late_response == "relock"):
        due = alert.filed_at + terms.npb_unlock_response
    if alert.extended_until is not None:
        due = max(due, alert.extended_until)
    if alert.penalty_stands and alert.penalty_accepted_at is not None:
        return min(alert.penalty_accepted_at, due)
    return due


def file_npb(case: Case, actor: Actor, comment: str | None, now: datetime) -> Granted | Refused:
    if refused := check_may_file_alert(case, AlertKind.NPB, actor, now):
        return refused
    order = case.order
    if order.payment_status.is_paid:
        return Refused(
            Code.ALREADY_PAID,
            f"The payment of {case.label} is {order.payment_status}, so the buyer is not a non-paying buyer.",
            unblocked_by="the payment being voided",
        )
    if refused := check_comment(comment):
        return refused
    superseded = " The open cancel request is superseded." if case.open_ocr else ""
    return file_alert(
        case,
        AlertKind.NPB,
        comment,
        now,
        note=f"The seller says the buyer has not paid.{superseded}",
        notice="npb_filed",
        facts={"unlocks_at_if_answered": format_timestamp(now + case.terms.npb_unlock_response)},
    )


def respond_to_npb(case: Case, actor: Actor, comment: str, now: datetime) -> Granted | Refused:
    alert = require_open_alert(case, AlertKind.NPB, actor, Role.BUYER, act=f"answer a {ALERT_LABELS[AlertKind.NPB]}")
    if isinstance(alert, Refused):
        return alert
    if case.order.status is not Status.NPB:
        return Refused(
            Code.WRONG_STATUS,
            f"The penalty for {case.label} is accepted; take that back first if the order will be paid.",
            unblocked_by="the buyer taking back the accepted penalty",
        )
    if refused := check_comment(comment):
        return refused
    again = alert.responded_at is not None
    answered = alert if again else _with_buyers_answer(alert, now, comment)
    event, answers = ("npb.responded_again", "answered again") if again else ("npb.responded", "answered")
    took_back: dict[str, Any] = (
        {"took_back": True} if alert.unlocked_at is not None and answered.unlocked_at is None else {}
    )
    note = f"The buyer {answers}: {comment}"
    return change_alert(case, answered, Event(event, note), Role.SELLER, "npb_responded", comment=comment, **took_back)


def extend_npb(case: Case, actor: Actor, until: datetime, comment: str, now: datetime) -> Granted | Refused | Invalid:
    alert = require_open_alert(case, AlertKind.NPB, actor, Role.SELLER, Role.STAFF, act="give the buyer more time")
    if isinstance(alert, Refused):
        return alert
    if now >= alert.unlocks_at:
        return Refused(
            Code.WRONG_STATUS,
            f"{case.label.capitalize()} can be cancelled since {describe_timestamp(alert.unlocks_at)}; "
            "from then on more time is given by not cancelling it.",
        )
    if refused := check_comment(comment):
        return refused
    if until <= alert.unlocks_at:
        return Invalid("until", "must be after the time at which the alert unlocks anyway")
    if until > alert.unlocks_at + MAX_NPB_EXTENSION:
        return Invalid("until", f"must not be more than {MAX_NPB_EXTENSION.days} days after the time of the unlock")
    event = Event("npb.extended", f"The buyer has until {describe_timestamp(until)} to pay: {comment}")
    extended = _with_new_unlock(alert, extended_until=until)
    return change_alert(case, extended, event, Role.BUYER, "npb_extended", comment=comment)


def accept_penalty(case: Case, actor: Actor, now: datetime) -> Granted | Refused:
    alert = require_open_alert(case, AlertKind.NPB, actor, Role.BUYER, act="accept the penalty")
    if isinstance(alert, Refused):
        return alert
    if case.order.status is not Status.NPB:
        return Refused(Code.WRONG_STATUS, f"The penalty for {case.label} is accepted already.")
    accepted = _with_new_unlock(alert, penalty_accepted_at=now, penalty_withdrawn_at=None)
    after = replace(case, order=replace(case.order, status=Status.NPX), alert=accepted)
    return Granted(
        after,
        event=Event("npb.penalty_accepted", "The buyer accepts the penalty; the seller may cancel at once."),
        messages=(notify_party(after, Role.SELLER, "npx_accepted", **automation_cancel_facts(after)),),
        effects={"status": Status.NPX, "unlocks_at": format_timestamp(accepted.unlocks_at)},
    )


def take_back(case: Case, actor: Actor, now: datetime) -> Granted | Refused:
    """T10: take back the accepted penalty.  Counts as an answer at this time unless there is one (R34)."""
    alert = require_open_alert(case, AlertKind.NPB, actor, Role.BUYER, act="take back the accepted penalty")
    if isinstance(alert, Refused):
        return alert
    if case.order.status is not Status.NPX:
        return Refused(
            Code.WRONG_STATUS,
            f"No penalty is accepted for {case.label}.",
            unblocked_by="the buyer accepting the penalty",
        )
    back = _with_new_unlock(alert, penalty_withdrawn_at=now)
    if not back.responded_at:
        back = _with_buyers_answer(back, now, None)
    event = Event("npb.taken_back", "The buyer takes the accepted penalty back and says the order will be paid.")
    return change_alert(case, back, event, Role.SELLER, "npx_taken_back", status=Status.NPB)


def _with_buyers_answer(alert: Alert, now: datetime, comment: str | None) -> Alert:
    # Record the first answer and the deadline it leads to; under `relock` it also undoes an unlock (R29).
    answered = _with_new_unlock(alert, responded_at=now, response=comment)
    return replace(answered, unlocked_at=None) if answered.unlocks_at > now else answered


def _with_new_unlock(alert: Alert, **changes: Any) -> Alert:
    changed = replace(alert, **changes)
    return replace(changed, unlocks_at=npb_unlocks_at(changed))
