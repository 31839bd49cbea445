"""Order cancel requests: filing, declining and withdrawing (R1 to R18)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from policies.automation import automation_answer_facts
from policies.cases import Actor, Case, Ocr, OcrState
from policies.notices import notify_party
from policies.preconditions import check_comment, check_no_problem, check_role, check_status
from policies.reasons import check_reason, describe_reason
from policies.statuses import Role, Status, counterparty
from policies.verdicts import Code, Event, Granted, OutboxMessage, Refused


def file_ocr(case: Case, actor: Actor, reason: str, comment: str, now: datetime) -> Granted | Refused:
    if refused := check_role(case, actor, Role.BUYER, Role.SELLER, act="file a cancel request"):
        return refused
    order = case.order
    role = case.role_of(actor)
    assert role is not None
    if (
        refused := check_no_problem(case, "a cancel request cannot be filed over an open case")
        or check_status(case, case.terms.ocr_fileable_statuses, "a cancel request can be filed in")
        or check_reason(reason, comment, role)
        or check_comment(comment)
    ):
        return refused
    request = Ocr(
        filed_by=role, reason=reason, comment=comment, filed_at=now, previous_status=order.status, terms=case.terms
    )
    after = replace(case, order=replace(order, status=Status.OCR, previous_status=order.status), ocr=request)
    facts = {"reason": reason, "comment": comment, **automation_answer_facts(after)}
    return Granted(
        after,
        event=Event("ocr.filed", f"The {role} asks to cancel, because {describe_reason(reason)}: {comment}"),
        messages=(
            notify_party(
                after, counterparty(role), "ocr_filed" if role is Role.BUYER else "ocr_filed_by_seller", **facts
            ),
        ),
        effects={"status": Status.OCR},
    )


def decline_ocr(case: Case, actor: Actor, now: datetime) -> Granted | Refused:
    if refused := check_role(case, actor, Role.SELLER, act="decline a cancel request"):
        return refused
    request = case.open_ocr
    if request is None:
        return _no_open_request(case)
    if request.filed_by is Role.SELLER:
        return Refused(
            Code.WRONG_ROLE,
            "This cancel request is the seller's own; it can be withdrawn, not declined.",
            unblocked_by="the seller withdrawing the request instead",
        )
    event = Event("ocr.declined", "The seller does not agree to cancel.")
    message = notify_party(case, Role.BUYER, "ocr_declined", status=request.previous_status)
    return _close_request(case, request, OcrState.DECLINED, event, now, message)


def withdraw_ocr(case: Case, actor: Actor, now: datetime) -> Granted | Refused:
    if refused := check_role(case, actor, Role.BUYER, Role.SELLER, act="withdraw a cancel request"):
        return refused
    request = case.open_ocr
    if request is None:
        return _no_open_request(case)
    if case.role_of(actor) is not request.filed_by:
        return Refused(
            Code.WRONG_ROLE,
            f"This cancel request was filed by the {request.filed_by}, who alone can withdraw it.",
            unblocked_by=f"the {request.filed_by} withdrawing it",
        )
    event = Event("ocr.withdrawn", f"The {request.filed_by} takes the cancel request back.")
    return _close_request(case, request, OcrState.WITHDRAWN, event, now)


def _close_request(
    case: Case, request: Ocr, state: OcrState, event: Event, now: datetime, *messages: OutboxMessage
) -> Granted:
    status = request.previous_status
    order = replace(case.order, status=status, previous_status=None)
    after = replace(case, order=order, ocr=replace(request, state=state, closed_at=now))
    return Granted(after, event=event, messages=messages, effects={"status": status})


def _no_open_request(case: Case) -> Refused:
    return Refused(
        Code.NO_OPEN_REQUEST,
        f"No cancel request is open for {case.label}.",
        unblocked_by="a cancel request being filed",
    )
