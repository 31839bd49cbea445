"""What automation does in a seller's name when deadlines fall due (R115 to R117, R121, R123)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from policies import automation, cancellation, npb, ocr
from policies.automation_settings import OCR_SILENCE_SETTING, describe_setting, setting_facts
from policies.cases import Actor, Case
from policies.notices import notify_party
from policies.statuses import Role
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Granted, Refused


def automatic_act_actor(case: Case) -> Actor:
    return Actor(case.seller.member_id, automation=True)


def file_automatically(case: Case, now: datetime) -> Granted | Refused:
    """File an NPB in the seller's name, if it is due, and tell the seller (R115, N21)."""
    due, setting = automation.files_npb_at(case), case.seller.automation.file_npb_after
    if due is None or setting is None or now < due:
        return _not_due(f"alert for {case.label}", due)
    verdict = npb.file_npb(case, automatic_act_actor(case), None, now)
    if isinstance(verdict, Refused):
        return verdict
    assert verdict.event is not None
    why = f"Filed by automation under the seller's setting {describe_setting('file_npb_after', setting)}."
    alert = verdict.case.alert
    assert alert is not None
    facts = {
        "unlocks_at": format_timestamp(alert.unlocks_at),
        "automation": setting_facts("file_npb_after", setting),
        **automation.automation_cancel_facts(verdict.case),
    }
    notice = notify_party(verdict.case, Role.SELLER, "npb_filed_automatically", **facts)
    event = replace(verdict.event, note=f"{verdict.event.note} {why}")
    return replace(verdict, event=event, messages=(*verdict.messages, notice))


def cancel_automatically(case: Case, now: datetime) -> Granted | Refused:
    """Cancel in the seller's name, if it is due (R116, R121)."""
    due, setting = automation.cancels_at(case), case.seller.automation.cancel_after_unlock
    if due is None or setting is None or now < due:
        return _not_due(f"cancellation of {case.label}", due)
    why = describe_setting("cancel_after_unlock", setting)
    return cancellation.cancel(case, automatic_act_actor(case), None, f"under the seller's setting {why}", now)


def agree_automatically(case: Case, now: datetime) -> Granted | Refused:
    """Agree to the buyer's request in the seller's name, if it is due (R117, R123)."""
    answer = automation.answer_to_request(case)
    if answer is None or not answer.agrees or now < answer.at:
        return _not_due(f"answer to a request for {case.label}", answer.at if answer else None)
    comment = f"under {_describe_automatic_act_ground(answer)}"
    return cancellation.cancel(case, automatic_act_actor(case), None, comment, now)


def decline_automatically(case: Case, now: datetime) -> Granted | Refused:
    """Decline the buyer's request in the seller's name, if it is due, and tell the seller (R123, N3, N21)."""
    answer = automation.answer_to_request(case)
    if answer is None or answer.agrees or now < answer.at:
        return _not_due(f"answer to a request for {case.label}", answer.at if answer else None)
    verdict = ocr.decline_ocr(case, automatic_act_actor(case), now)
    if isinstance(verdict, Refused):
        return verdict
    facts = {"status": verdict.case.order.status, "automation": setting_facts(answer.setting, answer.under)}
    assert verdict.event is not None
    note = f"Declined by automation without an answer, under {_describe_automatic_act_ground(answer)}."
    return replace(
        verdict,
        event=replace(verdict.event, note=note),
        messages=(
            notify_party(verdict.case, Role.BUYER, "ocr_declined", **facts),
            notify_party(verdict.case, Role.SELLER, "ocr_declined_automatically", **facts),
        ),
    )


def _describe_automatic_act_ground(answer: automation.AutomaticAct) -> str:
    whose = "the term" if answer.setting == OCR_SILENCE_SETTING else "the seller's setting"
    return f"{whose} {describe_setting(answer.setting, answer.under)}"


def _not_due(act: str, due: datetime | None) -> Refused:
    return Refused(Code.WRONG_STATUS, f"No automatic {act} is due.", possible_from=due)


AUTOMATIC_ACTS: tuple[tuple[Callable[[Case], datetime | None], Callable[[Case, datetime], Granted | Refused]], ...] = (
    # When each is due, and the act.
    (automation.files_npb_at, file_automatically),
    (automation.cancels_at, cancel_automatically),
    (automation.agrees_at, agree_automatically),
    (automation.declines_at, decline_automatically),
)
