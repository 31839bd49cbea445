"""Tests of order cancel requests (R1 to R18)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies import cancellation, npb, ocr
from policies.cases import Actor, OcrState
from policies.reasons import INVALID_REASONS, REASONS, VALID_REASONS
from policies.statuses import STRIKE_RECIPIENTS, CancelBasis, Role, Status
from policies.terms import DEFAULT_TERMS
from policies.verdicts import Granted
from tests.builders import BUYER, DAY, ORDERED, SELLER, STAFF, STRANGER, a_case, code, granted, refused
from tools.contract_files import argument_schema

FILEABLE = [Status.PENDING, Status.UPDATED, Status.PROCESSING, Status.READY, Status.PACKED]
PARTIES = [(BUYER, "B_MUTUAL"), (SELLER, "S_MUTUAL")]
LATER = ORDERED + DAY


@pytest.mark.parametrize("status", FILEABLE)
@pytest.mark.parametrize(("actor", "reason"), PARTIES)
def test_either_party_can_file_in_the_five_statuses(status: Status, actor: Actor, reason: str) -> None:
    """R1, R3, R10: status OCR, and the previous status is stored."""
    case = granted(ocr.file_ocr(a_case(status), actor, reason, "please", ORDERED))
    assert (case.order.status, case.order.previous_status) == (Status.OCR, status)


@pytest.mark.parametrize("status", [s for s in Status if s not in FILEABLE])
def test_no_request_in_any_other_status(status: Status) -> None:
    """R2, A10: refused with the code that says what is in the way."""
    expected = {
        Status.CANCELLED: "ALREADY_CANCELLED",
        Status.OCR: "ORDER_HAS_PROBLEM",
        Status.NPB: "ORDER_HAS_PROBLEM",
        Status.NPX: "ORDER_HAS_PROBLEM",
        Status.NRS: "ORDER_HAS_PROBLEM",
        Status.NSS: "ORDER_HAS_PROBLEM",
    }.get(status, "WRONG_STATUS")
    assert code(ocr.file_ocr(a_case(status), BUYER, "B_MUTUAL", "please", ORDERED)) == expected


def test_operator_can_allow_cancel_requests_for_paid_orders() -> None:
    terms = replace(DEFAULT_TERMS, ocr_fileable_statuses=(*DEFAULT_TERMS.ocr_fileable_statuses, Status.PAID))
    assert code(ocr.file_ocr(a_case(Status.PAID), BUYER, "B_MUTUAL", "x", ORDERED)) == "WRONG_STATUS"
    assert code(ocr.file_ocr(a_case(Status.PAID, terms=terms), BUYER, "B_MUTUAL", "x", ORDERED)) is None


@pytest.mark.parametrize("comment", ["", " ", "\t\n "])
def test_a_request_needs_a_comment(comment: str) -> None:
    """R5."""
    assert code(ocr.file_ocr(a_case(), BUYER, "B_MUTUAL", comment, ORDERED)) == "COMMENT_REQUIRED"


@pytest.mark.parametrize(
    ("actor", "reason", "expected"),
    [
        (BUYER, "NO_SUCH_REASON", "REASON_UNKNOWN"),
        (BUYER, "", "REASON_UNKNOWN"),
        *[
            (BUYER, reason, "REASON_OF_OTHER_PARTY")
            for reason in (*VALID_REASONS[Role.SELLER], *INVALID_REASONS[Role.SELLER])
        ],
        *[
            (SELLER, reason, "REASON_OF_OTHER_PARTY")
            for reason in (*VALID_REASONS[Role.BUYER], *INVALID_REASONS[Role.BUYER])
        ],
        (BUYER, "B_CHANGED_MIND", "REASON_NOT_VALID"),
        (BUYER, "B_FOUND_CHEAPER", "REASON_NOT_VALID"),
        (SELLER, "S_CHANGED_MIND", "REASON_NOT_VALID"),
        (SELLER, "S_FEE_AVOIDANCE", "REASON_NOT_VALID"),
        *[(BUYER, reason, None) for reason in VALID_REASONS[Role.BUYER]],
        *[(SELLER, reason, None) for reason in VALID_REASONS[Role.SELLER]],
    ],
)
def test_reasons_are_those_of_the_party(actor: Actor, reason: str, expected: str | None) -> None:
    """R4, R6, R7, R8, R9."""
    comment = "a comment that is long enough for any reason"
    assert code(ocr.file_ocr(a_case(), actor, reason, comment, ORDERED)) == expected


def test_the_seller_may_cancel_because_the_items_are_not_there() -> None:
    """R112: known to BrickLink's API as 60, which the glossary and the schemas say."""
    assert code(ocr.file_ocr(a_case(), SELLER, "S_NO_STOCK", "They are gone.", ORDERED)) is None
    assert code(ocr.file_ocr(a_case(), BUYER, "S_NO_STOCK", "They are gone.", ORDERED)) == "REASON_OF_OTHER_PARTY"
    assert "API id 60" in REASONS[Role.SELLER]["S_NO_STOCK"]
    assert REASONS[Role.SELLER]["S_NO_STOCK"] in json.dumps(argument_schema("ocr.file"))


def test_refusal_tells_the_buyer_to_ask_the_seller() -> None:
    assert "S_BUYER_CHANGED_MIND" in refused(ocr.file_ocr(a_case(), BUYER, "B_CHANGED_MIND", "x", ORDERED)).message


@pytest.mark.parametrize(
    ("comment", "expected"), [("x" * 19, "COMMENT_REQUIRED"), ("x" * 20, None), (" " * 30, "COMMENT_REQUIRED")]
)
@pytest.mark.parametrize(("actor", "reason"), [(BUYER, "B_OTHER"), (SELLER, "S_OTHER")])
def test_another_reason_must_be_explained(actor: Actor, reason: str, comment: str, expected: str | None) -> None:
    assert code(ocr.file_ocr(a_case(), actor, reason, comment, ORDERED)) == expected


def test_buyers_request_notifies_the_seller() -> None:
    """R11, N1: one outbox message, whose key makes it one notice."""
    verdict = ocr.file_ocr(a_case(), BUYER, "B_MUTUAL", "please", ORDERED)
    assert isinstance(verdict, Granted)
    assert [(p.task, p.key) for p in verdict.messages] == [("notices.tell_seller", "ocr_filed:1003:2:seller")]


@pytest.mark.parametrize("status", FILEABLE)
def test_decline_restores_the_previous_status(status: Status) -> None:
    """R12, T3."""
    requested = granted(ocr.file_ocr(a_case(status), BUYER, "B_MUTUAL", "please", ORDERED))
    declined = granted(ocr.decline_ocr(requested, SELLER, LATER))
    assert declined.ocr is not None
    assert (declined.order.status, declined.order.previous_status) == (status, None)
    assert declined.ocr.state is OcrState.DECLINED


def test_only_the_seller_declines_and_only_a_buyers_request() -> None:
    """T3."""
    requested = granted(ocr.file_ocr(a_case(), BUYER, "B_MUTUAL", "please", ORDERED))
    assert code(ocr.decline_ocr(requested, BUYER, LATER)) == "WRONG_ROLE"
    assert code(ocr.decline_ocr(a_case(), SELLER, LATER)) == "NO_OPEN_REQUEST"
    own_request = granted(ocr.file_ocr(a_case(), SELLER, "S_MUTUAL", "please", ORDERED))
    assert code(ocr.decline_ocr(own_request, SELLER, LATER)) == "WRONG_ROLE"


@pytest.mark.parametrize(("filer", "reason", "other_party"), [(BUYER, "B_MUTUAL", SELLER), (SELLER, "S_MUTUAL", BUYER)])
def test_only_the_filer_can_withdraw(filer: Actor, reason: str, other_party: Actor) -> None:
    """T6."""
    requested = granted(ocr.file_ocr(a_case(Status.PACKED), filer, reason, "please", ORDERED))
    assert code(ocr.withdraw_ocr(requested, other_party, LATER)) == "WRONG_ROLE"
    back = granted(ocr.withdraw_ocr(requested, filer, LATER))
    assert back.order.status is Status.PACKED
    assert code(ocr.withdraw_ocr(back, filer, LATER)) == "NO_OPEN_REQUEST"


def test_a_buyer_cannot_cancel_in_ocr() -> None:
    """R13."""
    for filer, reason in PARTIES:
        requested = granted(ocr.file_ocr(a_case(), filer, reason, "please", ORDERED))
        assert code(cancellation.cancel(requested, BUYER, None, None, LATER)) == "WRONG_ROLE"


def test_the_seller_cancels_on_a_request_at_once_and_at_any_age() -> None:
    """R14, R15."""
    for filer, reason, basis in [(SELLER, "S_MUTUAL", "OCR_SELLER"), (BUYER, "B_MUTUAL", "OCR_BUYER")]:
        requested = granted(ocr.file_ocr(a_case(), filer, reason, "please", ORDERED))
        for now in (ORDERED, ORDERED + 5000 * DAY):
            cancelled = granted(cancellation.cancel(requested, SELLER, None, None, now))
            assert cancelled.ocr is not None
            assert (cancelled.order.status, cancelled.order.basis) == (Status.CANCELLED, basis)
            assert cancelled.ocr.state is OcrState.AGREED


def test_cancel_request_causes_no_strike() -> None:
    """R17."""
    for basis in (CancelBasis.OCR_BUYER, CancelBasis.OCR_SELLER):
        assert STRIKE_RECIPIENTS.get(basis) is None


@pytest.mark.guarantee("P9")
@pytest.mark.parametrize("act", [ocr.decline_ocr, ocr.withdraw_ocr, npb.accept_penalty, npb.take_back])
def test_other_members_can_do_nothing(act: object) -> None:
    """R18."""
    assert code(act(a_case(), STRANGER, LATER)) == "NOT_A_PARTY"  # type: ignore[operator]
    assert code(ocr.file_ocr(a_case(), STRANGER, "B_MUTUAL", "x", LATER)) == "NOT_A_PARTY"
    assert code(cancellation.cancel(a_case(), STRANGER, None, None, LATER)) == "NOT_A_PARTY"


def test_staff_cannot_file_or_cancel() -> None:
    assert code(ocr.file_ocr(a_case(), STAFF, "B_MUTUAL", "x", LATER)) == "WRONG_ROLE"
    assert code(cancellation.cancel(a_case(), STAFF, None, None, LATER)) == "WRONG_ROLE"


@pytest.mark.parametrize(("actor", "role"), [(BUYER, Role.BUYER), (SELLER, Role.SELLER)])
def test_an_unknown_reason_is_answered_with_a_line_for_each_known_one(actor: Actor, role: Role) -> None:
    """R4."""
    unknown = refused(ocr.file_ocr(a_case(), actor, "NO_SUCH_REASON", "a comment", ORDERED))
    assert all(f"{reason}: {words}" in unknown.message for reason, words in VALID_REASONS[role].items())
