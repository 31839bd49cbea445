"""Cases with automation, and when it acts on them: as stored, announced and acted on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from policies import automation, npb, ocr
from policies.automation_settings import OCR_SILENCE_SETTING, AutomationSetting
from policies.cases import Case
from policies.terms import DEFAULT_TERMS, OcrSilenceTerm
from tests.builders import BUYER, DAY, ORDERED, SELLER, a_case, granted

SET_AT = ORDERED - DAY
FILED = ORDERED + 7 * DAY
UNLOCKED = FILED + 7 * DAY
THREE_DAYS = AutomationSetting(3, SET_AT)


def automated(case: Case, **settings: AutomationSetting | None) -> Case:
    values: dict[str, Any] = settings or {"cancel_after_unlock": THREE_DAYS}
    seller = replace(case.seller, automation=replace(case.seller.automation, **values))
    return automation.with_deadlines(replace(case, seller=seller))


def filed(days: int = 3) -> Case:
    return automated(
        granted(npb.file_npb(a_case(), SELLER, None, FILED)), cancel_after_unlock=AutomationSetting(days, SET_AT)
    )


def cancels_at(case: Case) -> datetime | None:
    """The deadline as it is stored, announced and acted on, which are one."""
    case = automation.with_deadlines(case)
    due = automation.cancels_at(case)
    assert case.alert is None or case.alert.cancels_at == due
    assert [a.at for a in automation.list_announced_acts(case) if a.setting == "cancel_after_unlock"] == (
        [due] if due else []
    )
    return due


def unpaid(days: int = 7, **fields: Any) -> Case:
    return automated(a_case(**fields), file_npb_after=AutomationSetting(days, SET_AT))


def files_at(case: Case) -> datetime | None:
    case = automation.with_deadlines(case)
    due = automation.files_npb_at(case)
    assert case.order.files_npb_at == due
    assert [a.at for a in automation.list_announced_acts(case) if a.act == "npb.file"] == ([due] if due else [])
    return due


def asked(
    *, hours: int | None = 24, silence: OcrSilenceTerm | None = None, at: datetime = ORDERED + DAY, **fields: Any
) -> Case:
    """The buyer's cancel request, by default a day after the order date."""
    terms = replace(DEFAULT_TERMS, ocr_silence=silence)
    case = granted(ocr.file_ocr(a_case(terms=terms, **fields), BUYER, "B_MUTUAL", "please", at))
    return automated(case, agree_to_requests_within=None if hours is None else AutomationSetting(hours, SET_AT))


AGREE, DECLINE = OcrSilenceTerm(agrees=True, after=5 * DAY), OcrSilenceTerm(agrees=False, after=5 * DAY)
ASKED = ORDERED + DAY


def answer_of(case: Case) -> tuple[str, datetime] | None:
    """The automatic answer as it is stored and announced, which are one."""
    case = automation.with_deadlines(case)
    own = (OCR_SILENCE_SETTING, "agree_to_requests_within")
    answers = [(a.act, a.at) for a in automation.list_announced_acts(case) if a.setting in own]
    stored = case.ocr and {"orders.cancel": case.ocr.agrees_at, "ocr.decline": case.ocr.declines_at}
    assert dict(answers) == {act: at for act, at in (stored or {}).items() if at is not None}
    return answers[0] if answers else None
