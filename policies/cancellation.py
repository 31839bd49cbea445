"""Who can cancel an order, on what ground, and what follows: strike, fee, removals, emails (R13 to R16, R53 to R62).

Whether an order can be cancelled follows from stored facts and the time of the command, never from the mark of a
sweep (R40).
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from policies.automation import automation_facts
from policies.cases import AUTOMATION_ACTOR, Actor, Alert, AlertKind, AlertState, Case, OcrState
from policies.copies import replace
from policies.credits import decide_fee, fee_credit_effects, fee_credit_message
from policies.members import add_strike
from policies.notices import notify_party
from policies.preconditions import check_comment, check_not_cancelled, check_party
from policies.reasons import check_reason, describe_reason
from policies.removals import CANCEL_REMOVALS_TASK
from policies.returns import ReturnTotals
from policies.statuses import BASIS_LABELS, STRIKE_RECIPIENTS, CancelBasis, Role, Status
from policies.timestamps import describe_timestamp
from policies.verdicts import Code, Event, Granted, OutboxMessage, Refused


def cancel_basis_for(case: Case, actor: Actor, now: datetime) -> CancelBasis | Refused:
    """Find the ground to cancel on: OCR, NPX, matured alert, and termination only without any of them."""
    if refused := check_party(case, actor) or check_not_cancelled(case):
        return refused
    role = case.role_of(actor)
    if role is Role.SELLER:
        return _seller_basis(case, now)
    if role is Role.BUYER:
        return _buyer_basis(case, now)
    return Refused(
        Code.WRONG_ROLE,
        "Staff cannot cancel an order; its buyer or seller can.",
        unblocked_by="the buyer or the seller doing it",
    )


def cancel(case: Case, actor: Actor, reason: str | None, comment: str | None, now: datetime) -> Granted | Refused:
    basis = cancel_basis_for(case, actor, now)
    if isinstance(basis, Refused):
        return basis
    role = case.role_of(actor)
    assert role is not None
    if reason is not None and (refused := check_reason(reason, comment, role)):
        return refused
    if refused := check_comment(comment):
        return refused
    order = replace(
        case.order,
        status=Status.CANCELLED,
        previous_status=case.order.status,
        cancelled_at=now,
        basis=basis,
        cancelled_by=str(actor),
    )
    ocr, alert = case.open_ocr, case.open_alert
    agreed = basis in (CancelBasis.OCR_SELLER, CancelBasis.OCR_BUYER)
    completed = basis in STRIKE_RECIPIENTS  # as only a completed alert is a strike (A20)
    after = replace(
        case,
        order=order,
        ocr=replace(ocr, state=OcrState.AGREED if agreed else OcrState.SUPERSEDED, closed_at=now) if ocr else case.ocr,
        alert=replace(alert, state=AlertState.COMPLETED if completed else AlertState.SUPERSEDED, closed_at=now)
        if alert
        else case.alert,
    )
    because = f", because {describe_reason(reason)}" if reason else ""
    remark = f": {comment}" if comment else "."
    by = f"automation for the {role}" if actor.automation else f"the {role}"
    return Granted(
        after,
        event=Event("orders.cancelled", f"Cancelled by {by} on the ground of {BASIS_LABELS[basis]}{because}{remark}"),
        effects={"basis": basis},
    )


def returns_items(basis: CancelBasis, *, seller_terminated: bool) -> bool:
    return basis not in (CancelBasis.NRS, CancelBasis.NSS) and not seller_terminated


def warn_of_payment(case: Case, basis: CancelBasis) -> str:
    """Warn that a cancellation through NPB or NPX is a strike for a buyer who seems to have paid; empty otherwise."""
    if STRIKE_RECIPIENTS.get(basis) is not Role.BUYER or not case.order.payment_status.is_paid:
        return ""
    return (
        f"But the payment is {case.order.payment_status}: cancelling now would give the buyer a strike "
        "for an order that seems to be paid. Remove the alert instead (npb.remove)."
    )


def _seller_basis(case: Case, now: datetime) -> CancelBasis | Refused:
    ocr, alert = case.open_ocr, case.open_alert
    if ocr is not None:
        return CancelBasis.OCR_SELLER if ocr.filed_by is Role.SELLER else CancelBasis.OCR_BUYER
    if alert is not None and alert.kind is AlertKind.NPB:
        if alert.penalty_stands:
            return CancelBasis.NPX
        if now >= alert.unlocks_at:
            return CancelBasis.NPB
    if case.buyer.terminated:
        return CancelBasis.BUYER_TERMINATED
    if alert is None:
        return Refused(
            Code.NO_OPEN_REQUEST,
            f"Nothing is open on {case.label} that would let the seller cancel it.",
            unblocked_by="a cancel request being filed",
        )
    if alert.kind is not AlertKind.NPB:
        return Refused(
            Code.WRONG_ROLE,
            f"{case.label.capitalize()} is in {alert.kind}: "
            "only the buyer, who filed the alert, can cancel through it.",
            unblocked_by="the buyer removing the alert",
        )
    return _cancel_too_early(case, alert)


def _buyer_basis(case: Case, now: datetime) -> CancelBasis | Refused:
    alert = case.open_alert
    if alert is not None and alert.kind is not AlertKind.NPB and now >= alert.unlocks_at:
        return CancelBasis(alert.kind)
    if case.seller.terminated:
        return CancelBasis.SELLER_TERMINATED
    if case.open_ocr is not None or (alert is not None and alert.kind is AlertKind.NPB):
        return Refused(
            Code.WRONG_ROLE,
            f"{case.label.capitalize()} is in {case.order.status}: cancelling is strictly the seller's decision.",
            unblocked_by="the seller cancelling",
        )
    if alert is None:
        return Refused(
            Code.NO_OPEN_ALERT,
            f"Nothing is open on {case.label} that would let the buyer cancel it; "
            "a buyer asks the seller with a cancel request, "
            "or files an alert when the seller is silent or does not ship.",
            unblocked_by="an alert being filed by the buyer and maturing",
        )
    return _cancel_too_early(case, alert)


def _cancel_too_early(case: Case, alert: Alert) -> Refused:
    due = describe_timestamp(alert.unlocks_at)
    if alert.kind is not AlertKind.NPB:
        why = f"The alert was filed on {describe_timestamp(alert.filed_at)}"
    elif alert.responded_at is not None and alert.unlocks_at > alert.filed_at + alert.terms.npb_unlock_no_response:
        why = f"The buyer answered on {describe_timestamp(alert.responded_at)}"
    else:
        why = f"The alert was filed on {describe_timestamp(alert.filed_at)} and the buyer has not answered"
    accept = " or the buyer accepting the penalty" if alert.kind is AlertKind.NPB else ""
    return Refused(
        Code.TOO_EARLY,
        f"{why}, so {case.label} can be cancelled from {due}.",
        possible_from=alert.unlocks_at,
        unblocked_by=f"time alone{accept}",
    )


def add_cancellation_strike(case: Case, granted: Granted) -> Granted:
    after = granted.case
    role = STRIKE_RECIPIENTS.get(after.order.basis) if after.order.basis is not None else None
    if role is None:
        return granted
    terms = after.alert.terms if after.alert is not None else after.terms
    before, order_id, messages = case.member(role), after.order.order_id, granted.messages
    member = add_strike(before, role, order_id, terms)
    if (before.can_buy and not member.can_buy) or (before.can_sell and not member.can_sell):
        revoked = notify_party(
            after,
            role,
            "privilege_revoked",
            privilege="buying" if role is Role.BUYER else "selling",
            strikes=list(member.strikes(role)),
        )
        messages = (*messages, revoked)
    return replace(granted, case=after.with_member(role, member), messages=messages)


def add_cancellation_effects(
    case: Case,
    granted: Granted,
    back: ReturnTotals,
    *,
    by: Role | None,
    at: datetime,
    pending_removals: int,
    first_open: date | None = None,
) -> Granted:
    """Add fee, event, answer and outbox messages to a granted cancellation; `first_open` as in `decide_fee`."""
    after, basis, event = granted.case, granted.case.order.basis, granted.event
    assert basis is not None
    assert event is not None
    decision = decide_fee(after.order, basis, at, case.terms, first_open)
    fee = fee_credit_effects(decision)
    facts: dict[str, Any] = {
        "basis": basis,
        "by": by,
        "returns": returns_items(basis, seller_terminated=case.seller.terminated),
        "lines_returned": back.lines_returned,
        "units_returned": back.units_returned,
        "strike": basis in STRIKE_RECIPIENTS,
    }
    if automatic := automation_facts(case) if after.order.cancelled_by == AUTOMATION_ACTOR else None:
        facts["automation"] = automatic
    messages = [
        *granted.messages,
        notify_party(after, Role.SELLER, "order_cancelled", **facts, fee=fee),
        notify_party(after, Role.BUYER, "order_cancelled", **facts),
    ]
    if posting := fee_credit_message(decision, after.order, at):
        messages.append(posting)
    if pending_removals:
        order_id = after.order.order_id
        messages.append(OutboxMessage(CANCEL_REMOVALS_TASK, f"removals:{order_id}", order_id))
    event = replace(event, changes={"returned": back.lines, "fee": fee})
    effects = {"basis": basis, "lines": back.lines, "removals_cancelled": pending_removals, "fee": fee}
    return replace(granted, event=event, messages=tuple(messages), effects=effects)
