"""Automatic answers to cancel requests: to the second, only where nothing speaks against them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policies import automatic_acts, automation, cancellation, npb, ocr, orders
from policies.cases import Case
from policies.statuses import CancelBasis, PaymentStatus, Status
from policies.term_parsing import format_silence_term, terms_from_mapping, terms_to_mapping
from policies.terms import DEFAULT_TERMS, OcrSilenceTerm
from policies.verdicts import Granted, Refused
from tests.builders import BUYER, DAY, ORDERED, SECOND, SELLER, a_case, boundary_instants, code, granted, with_member
from tests.policies.automated_cases import AGREE, ASKED, DECLINE, FILED, answer_of, asked, automated


@pytest.mark.parametrize("hours", [0, 24, 168])
def test_a_request_within_so_many_hours_is_agreed_to_at_once(hours: int) -> None:
    """R117, R119: counted from the order date, to the second, as the seller's own agreement."""
    limit = ORDERED + timedelta(hours=hours)
    for at, within in ((limit - SECOND, True), (limit, True), (limit + SECOND, False)):
        case = asked(hours=hours, at=max(at, ORDERED))
        assert answer_of(case) == (("orders.cancel", max(at, ORDERED)) if within else None)
    case = asked(hours=hours, at=limit)
    assert code(automatic_acts.agree_automatically(case, limit - SECOND)) == "WRONG_STATUS"
    verdict, own = automatic_acts.agree_automatically(case, limit), cancellation.cancel(case, SELLER, None, None, limit)
    assert isinstance(verdict, Granted)
    assert isinstance(own, Granted)
    assert verdict.case == replace(own.case, order=replace(own.case.order, cancelled_by="automation"))
    assert verdict.case.order.basis is CancelBasis.OCR_BUYER
    assert verdict.event is not None
    assert f"agree_to_requests_within = {hours} hour" in verdict.event.note


@pytest.mark.parametrize("status", DEFAULT_TERMS.ocr_fileable_statuses)
def test_a_request_for_a_packed_order_is_left_to_the_seller(status: Status) -> None:
    """R117: agreed to from PENDING, UPDATED, PROCESSING and READY only."""
    expected = None if status is Status.PACKED else ("orders.cancel", ASKED)
    assert answer_of(asked(status=status)) == expected


@pytest.mark.parametrize("payment", list(PaymentStatus))
def test_a_paid_order_is_cancelled_by_a_person_only(payment: PaymentStatus) -> None:
    """R117, R121, R123, R108: whatever agrees; a decline asks for no payment status."""
    paid = payment in (PaymentStatus.RECEIVED, PaymentStatus.COMPLETED)
    assert answer_of(asked(payment=payment)) == (None if paid else ("orders.cancel", ASKED))
    silent = asked(hours=None, silence=AGREE, payment=payment)
    assert answer_of(silent) == (None if paid else ("orders.cancel", ASKED + 5 * DAY))
    case = granted(orders.record_order_payment(asked(), payment, ASKED))
    assert isinstance(automatic_acts.agree_automatically(case, ASKED + DAY), Refused) is paid
    assert answer_of(asked(silence=DECLINE, hours=None, payment=payment)) == ("ocr.decline", ASKED + 5 * DAY)


@pytest.mark.parametrize("silence", [AGREE, DECLINE])
def test_a_request_without_an_answer_is_answered_by_the_terms(silence: OcrSilenceTerm) -> None:
    """R123, R119, N3, N11, N21: to the second, in the seller's name, and the email says why."""
    case = asked(hours=None, silence=silence)
    due = ASKED + 5 * DAY
    assert answer_of(case) == ("orders.cancel" if silence.agrees else "ocr.decline", due)
    act, other = automatic_acts.agree_automatically, automatic_acts.decline_automatically
    if not silence.agrees:
        act, other = other, act
    for instant, reached in boundary_instants(due):
        assert isinstance(act(case, instant), Granted) is reached
        assert isinstance(other(case, instant), Refused)
    verdict = act(case, due)
    assert isinstance(verdict, Granted)
    assert verdict.event is not None
    assert f"OCR_SILENCE = {format_silence_term(silence)}, in force on 2026-03-29T10:00:00Z" in verdict.event.note
    if not silence.agrees:
        assert verdict.case.order.status is Status.PENDING
        assert [(m.payload["event"], m.payload["role"]) for m in verdict.messages] == [
            ("ocr_declined", "buyer"),
            ("ocr_declined_automatically", "seller"),
        ]
        assert all(m.payload["facts"]["automation"]["setting"] == "OCR_SILENCE" for m in verdict.messages)


@pytest.mark.parametrize(
    "case",
    [
        asked(hours=None),
        automated(granted(ocr.file_ocr(a_case(), SELLER, "S_MUTUAL", "please", ASKED)), agree_to_requests_within=None),
        with_member(asked(silence=AGREE), seller_terminated=True),
        granted(ocr.withdraw_ocr(asked(silence=AGREE), BUYER, ASKED)),
        granted(ocr.decline_ocr(asked(silence=AGREE), SELLER, ASKED)),
        granted(npb.file_npb(asked(silence=AGREE), SELLER, None, FILED)),
        granted(automation.hold_automation(asked(silence=DECLINE), SELLER, None, "wait", ASKED)),
    ],
    ids=["off", "the seller's own", "terminated", "withdrawn", "declined", "superseded", "held"],
)
def test_no_other_request_is_answered(case: Case) -> None:
    """R117, R118, R123."""
    case = automated(case, cancel_after_unlock=None)
    assert answer_of(case) is None
    for act in (automatic_acts.agree_automatically, automatic_acts.decline_automatically):
        assert code(act(case, ASKED + 90 * DAY)) == "WRONG_STATUS"


def test_a_request_of_an_excluded_buyer_waits() -> None:
    """R118: also against the term of the marketplace."""
    case = asked(silence=DECLINE)
    seller = replace(case.seller, automation=replace(case.seller.automation, excluded=frozenset({"buyer"})))
    assert answer_of(replace(case, seller=seller)) is None


def test_a_hold_with_an_end_postpones_the_answer() -> None:
    """R118: to its end, if that is later."""
    for until, due in ((ASKED + DAY, ASKED + 5 * DAY), (ASKED + 6 * DAY, ASKED + 6 * DAY)):
        held = automation.hold_automation(asked(hours=None, silence=DECLINE), SELLER, until, "wait", ASKED)
        assert answer_of(granted(held)) == ("ocr.decline", due)
    held = automation.hold_automation(asked(), SELLER, ASKED + DAY, "wait", ASKED)
    assert answer_of(granted(held)) == ("orders.cancel", ASKED + DAY)


def test_the_terms_of_its_filing_answer_a_request() -> None:
    """R123: later terms do not."""
    assert answer_of(replace(asked(hours=None, silence=AGREE), terms=DEFAULT_TERMS)) == (
        "orders.cancel",
        ASKED + 5 * DAY,
    )


@pytest.mark.parametrize(
    "written", ["none", {"agree_after": "5d"}, {"decline_after": "36h"}], ids=["none", "agree", "decline"]
)
def test_the_term_is_read_as_it_is_written(written: Any) -> None:
    """R123."""
    terms = terms_from_mapping({"OCR_SILENCE": written})
    assert not isinstance(terms, list)
    assert terms_to_mapping(terms)["OCR_SILENCE"] == written
