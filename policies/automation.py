"""When automation acts in a seller's name: the date of each act, holds, and announcements (R115 to R119, R123).

Each deadline follows from the facts of a case.  It is stored when they change, for sweeps to find, and computed again
under the lock before anything happens (`policies.automatic_acts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policies.automation_settings import (
    OCR_SILENCE_SETTING,
    AutomationSetting,
    describe_setting,
    setting_duration,
    setting_facts,
)
from policies.cases import Actor, AlertKind, Case
from policies.copies import replace
from policies.notices import notify_member
from policies.preconditions import check_comment, check_role
from policies.statuses import ALERT_BLOCKING_STATUSES, PaymentStatus, Role, Status
from policies.term_parsing import format_silence_term
from policies.timestamps import describe_timestamp, format_optional_timestamp, format_timestamp
from policies.verdicts import Code, Event, Granted, Invalid, OutboxMessage, Refused

WARN_BEFORE_CANCELLATION = timedelta(hours=24)
"""How long before an automatic cancellation the buyer is warned (N20)."""

AUTOMATION_AGREED_STATUSES = (Status.PENDING, Status.UPDATED, Status.PROCESSING, Status.READY)
"""The statuses before a request in which `agree_to_requests_within` agrees to it (R117)."""


@dataclass(frozen=True)
class AutomaticAct:
    """An act to come under a setting; `sentence` announces it."""

    act: str
    at: datetime
    setting: str
    under: AutomationSetting
    sentence: str = ""

    @property
    def agrees(self) -> bool:
        return self.act == "orders.cancel"

    def as_json(self) -> dict[str, Any]:
        return {
            "act": self.act,
            "at": format_timestamp(self.at),
            **setting_facts(self.setting, self.under),
            "sentence": self.sentence,
        }


def files_npb_at(case: Case) -> datetime | None:
    """The time of the automatic filing of an NPB, once for each order date (R115); None if there is none to come."""
    order, setting = case.order, case.seller.automation.file_npb_after
    if setting is None or order.status in ALERT_BLOCKING_STATUSES or not _may_automation_touch(case):
        return None
    if order.payment_status is not PaymentStatus.NONE:
        return None
    if order.npb_filed_at is not None and order.npb_filed_at >= order.order_date:
        return None
    wanted = _after_automation_hold(case, order.order_date + setting_duration("file_npb_after", setting))
    if wanted is None:
        return None
    due = max(wanted, order.order_date + case.terms.npb_file_after)
    for begin, terms in case.later_terms:
        if due < begin:
            break
        due = max(wanted, begin, order.order_date + terms.npb_file_after)
    return due


def cancels_at(case: Case) -> datetime | None:
    """The time of the automatic cancellation through NPB or NPX (R116); None if there is none to come."""
    alert, setting = case.open_alert, case.seller.automation.cancel_after_unlock
    if alert is None or alert.kind is not AlertKind.NPB or setting is None or not _may_automation_touch(case):
        return None
    if case.order.payment_status is not PaymentStatus.NONE:
        return None
    unlock = alert.unlocks_at
    if alert.penalty_stands and alert.penalty_accepted_at is not None:
        unlock = alert.penalty_accepted_at
    return _after_automation_hold(case, unlock + setting_duration("cancel_after_unlock", setting))


def answer_to_request(case: Case) -> AutomaticAct | None:
    """The automatic answer to the buyer's open request (R117, R123); None if there is none to come.

    Only a person agrees to cancel an order that is paid.  A payment that the buyer claims is not one (R108).
    """
    request, order, setting = case.open_ocr, case.order, case.seller.automation.agree_to_requests_within
    if request is None or request.filed_by is not Role.BUYER or not _may_automation_touch(case):
        return None
    paid, silence = order.payment_status.is_paid, request.terms.ocr_silence
    if setting is not None and not paid and request.previous_status in AUTOMATION_AGREED_STATUSES:
        name = "agree_to_requests_within"
        if request.filed_at <= order.order_date + setting_duration(name, setting):
            at = _after_automation_hold(case, request.filed_at)
            return None if at is None else AutomaticAct("orders.cancel", at, name, setting)
    if silence is None or (silence.agrees and paid):
        return None
    at = _after_automation_hold(case, request.filed_at + silence.after)
    under = AutomationSetting(format_silence_term(silence), request.filed_at)
    act = "orders.cancel" if silence.agrees else "ocr.decline"
    return None if at is None else AutomaticAct(act, at, OCR_SILENCE_SETTING, under)


def agrees_at(case: Case) -> datetime | None:
    answer = answer_to_request(case)
    return answer.at if answer is not None and answer.agrees else None


def declines_at(case: Case) -> datetime | None:
    answer = answer_to_request(case)
    return answer.at if answer is not None and not answer.agrees else None


def with_deadlines(case: Case) -> Case:
    if (files := files_npb_at(case)) != case.order.files_npb_at:
        case = replace(case, order=replace(case.order, files_npb_at=files))
    if case.ocr is not None:
        times = agrees_at(case), declines_at(case)
        if times != (case.ocr.agrees_at, case.ocr.declines_at):
            case = replace(case, ocr=replace(case.ocr, agrees_at=times[0], declines_at=times[1]))
    if case.alert is None or (due := cancels_at(case)) == case.alert.cancels_at:
        return case
    return replace(case, alert=replace(case.alert, cancels_at=due))


def hold_automation(
    case: Case, actor: Actor, until: datetime | None, comment: str, now: datetime
) -> Granted | Refused | Invalid:
    """Hold automation off the order, without end or until a time; a further hold replaces the last (R118)."""
    if refused := check_role(case, actor, Role.SELLER, Role.STAFF, act="hold an order against automation"):
        return refused
    if refused := check_comment(comment):
        return refused
    if until is not None and until <= now:
        return Invalid("until", "must be in the future")
    after = replace(case, order=replace(case.order, held_at=now, held_until=until))
    end = f"until {describe_timestamp(until)}" if until else "until it is released"
    return Granted(
        after,
        event=Event("orders.automation_held", f"Automation does not touch this order {end}: {comment}"),
        effects={"held_until": format_optional_timestamp(until)},
    )


def release_automation_hold(case: Case, actor: Actor, comment: str, now: datetime) -> Granted | Refused:
    if refused := check_role(case, actor, Role.SELLER, Role.STAFF, act="release an order for automation"):
        return refused
    order = case.order
    if order.held_at is None or (order.held_until is not None and order.held_until <= now):
        return Refused(Code.WRONG_STATUS, f"{case.label.capitalize()} is not on hold.", unblocked_by="a hold")
    if refused := check_comment(comment):
        return refused
    after = replace(case, order=replace(order, held_at=None, held_until=None))
    return Granted(after, event=Event("orders.automation_released", f"Automation may touch this order: {comment}"))


def list_announced_acts(case: Case) -> list[AutomaticAct]:
    """The automatic acts to come if nothing changes, with the times that their sweeps compare (R119)."""
    acts = (
        ("npb.file", files_npb_at(case), "file_npb_after", "get a non-paying buyer alert"),
        ("orders.cancel", cancels_at(case), "cancel_after_unlock", "be cancelled"),
    )
    announced_acts = [
        AutomaticAct(
            act,
            due,
            name,
            setting,
            f"{case.label.capitalize()} will {phrase} automatically on {describe_timestamp(due)}, "
            f"unless the buyer pays or the seller holds it ({describe_setting(name, setting)}).",
        )
        for act, due, name, phrase in acts
        if due is not None and (setting := getattr(case.seller.automation, name)) is not None
    ]
    if (answer := answer_to_request(case)) is not None:
        announced_acts.append(replace(answer, sentence=_announce_automatic_answer(case, answer)))
    return announced_acts


def automation_cancel_facts(case: Case) -> dict[str, str]:
    due = cancels_at(case)
    return {} if due is None else {"cancels_at": format_timestamp(due)}


def automation_answer_facts(case: Case) -> dict[str, Any]:
    answer = answer_to_request(case)
    if answer is None:
        return {}
    if not answer.agrees:
        return {"declines_at": format_timestamp(answer.at)}
    return {"agrees_at": format_timestamp(answer.at), "agreed_by_setting": answer.setting != OCR_SILENCE_SETTING}


def automation_facts(case: Case) -> dict[str, Any] | None:
    """The facts about an automatic cancellation of this case for emails and answers (N21)."""
    if (answer := answer_to_request(case)) is not None:
        return setting_facts(answer.setting, answer.under)
    setting = case.seller.automation.cancel_after_unlock
    return None if setting is None else setting_facts("cancel_after_unlock", setting)


def automatic_cancellation_warning(alert: Any, now: datetime) -> OutboxMessage | None:
    """The warning of a cancellation to come (N20); None if there is no time left to pay."""
    if alert.cancels_at <= now:
        return None
    cancels_at = format_timestamp(alert.cancels_at)
    return notify_member(
        Role.BUYER,
        "cancellation_coming",
        member_id=alert.buyer_id,
        order_id=alert.order_id,
        occasion=f"{alert.order_id}:alert{alert.alert_id}:{cancels_at}",
        cancels_at=cancels_at,
        penalty_accepted=alert.penalty_stands,
    )


def _announce_automatic_answer(case: Case, answer: AutomaticAct) -> str:
    what, unless = (
        (f"{case.label.capitalize()} will be cancelled", "the buyer pays or takes the request back")
        if answer.agrees
        else (f"The cancel request for {case.label} will be declined", "the buyer takes it back")
    )
    return (
        f"{what} automatically on {describe_timestamp(answer.at)}, unless {unless}, or the seller answers it or holds "
        f"the order ({describe_setting(answer.setting, answer.under)})."
    )


def _may_automation_touch(case: Case) -> bool:
    # R118
    return not case.seller.terminated and case.order.buyer_id not in case.seller.automation.excluded


def _after_automation_hold(case: Case, due: datetime) -> datetime | None:
    order = case.order
    if order.held_at is None:
        return due
    return None if order.held_until is None else max(due, order.held_until)
