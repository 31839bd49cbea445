"""Tests of non-paying buyer alerts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import alerts, cancellation, npb, ocr
from policies.cases import Actor, AlertKind, AlertState, Case, OcrState
from policies.statuses import ALERT_BLOCKING_STATUSES, OPEN_FLOW, PaymentStatus, Status
from policies.terms import DEFAULT_TERMS
from policies.timestamps import format_timestamp
from policies.verdicts import Granted, Invalid, Refused
from tests.builders import (
    BUYER,
    DAY,
    ORDERED,
    SECOND,
    SELLER,
    STAFF,
    STRANGER,
    a_case,
    boundary_instants,
    code,
    granted,
    refused,
    unlock_due,
)

FILED = ORDERED + 7 * DAY
RELOCK = replace(DEFAULT_TERMS, npb_late_response="relock")


def filed(case: Case | None = None, at: datetime = FILED) -> Case:
    return granted(npb.file_npb(case or a_case(), SELLER, None, at))


def cancel_code(case: Case, now: datetime) -> str | None:
    basis = cancellation.cancel_basis_for(case, SELLER, now)
    return code(basis) if not isinstance(basis, str) else None


@pytest.mark.parametrize(("now", "reached"), boundary_instants(FILED))
def test_alert_can_be_filed_seven_days_after_the_order_date(now: datetime, reached: bool) -> None:
    """R19: refused one second before order date + 7 d, accepted at and after it."""
    verdict = npb.file_npb(a_case(), SELLER, None, now)
    assert code(verdict) == (None if reached else "TOO_EARLY")
    if not reached:
        assert refused(verdict).possible_from == FILED


def test_filing_period_restarts_when_the_order_date_changes() -> None:
    """R20: a batch or a removal on day 6 moves the earliest alert to 7 d after that."""
    moved = a_case(Status.UPDATED, ordered=ORDERED + 6 * DAY)
    assert refused(npb.file_npb(moved, SELLER, None, FILED)).possible_from == ORDERED + 13 * DAY


@pytest.mark.parametrize("status", ALERT_BLOCKING_STATUSES)
def test_only_one_alert_can_be_open(status: Status) -> None:
    """R21: refused in NPB, NPX, NRS, NSS and CANCELLED."""
    expected = "ALREADY_CANCELLED" if status is Status.CANCELLED else "ORDER_HAS_PROBLEM"
    assert code(npb.file_npb(a_case(status), SELLER, None, FILED)) == expected


@pytest.mark.parametrize("status", OPEN_FLOW)
def test_alert_can_be_filed_in_every_open_status_when_unpaid(status: Status) -> None:
    """T7: shipped and completed orders are not excluded, only paid ones."""
    assert code(npb.file_npb(a_case(status), SELLER, None, FILED)) is None


def test_alert_over_an_open_request_supersedes_it() -> None:
    """R22, A9: NPB is accepted from OCR and closes that OCR as superseded."""
    requested = granted(ocr.file_ocr(a_case(Status.READY), BUYER, "B_MUTUAL", "please", ORDERED + DAY))
    case = filed(requested)
    assert case.ocr is not None
    assert (case.ocr.state, case.order.status) == (OcrState.SUPERSEDED, Status.NPB)


@pytest.mark.parametrize(
    ("payment", "expected"),
    [
        (PaymentStatus.NONE, None),
        (PaymentStatus.SENT, None),
        (PaymentStatus.RECEIVED, "ALREADY_PAID"),
        (PaymentStatus.COMPLETED, "ALREADY_PAID"),
    ],
)
def test_npb_is_refused_for_a_paid_order(payment: PaymentStatus, expected: str | None) -> None:
    """R23: only a received or completed payment blocks; Sent is the buyer's claim."""
    assert code(npb.file_npb(a_case(payment=payment), SELLER, None, FILED)) == expected


@pytest.mark.parametrize(
    ("actor", "expected"), [(BUYER, "WRONG_ROLE"), (STAFF, "WRONG_ROLE"), (STRANGER, "NOT_A_PARTY")]
)
def test_only_the_seller_files(actor: object, expected: str) -> None:
    """R18, R24."""
    assert code(npb.file_npb(a_case(), actor, None, FILED)) == expected  # type: ignore[arg-type]


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(("now", "reached"), boundary_instants(FILED + 7 * DAY))
def test_without_an_answer_cancelling_unlocks_after_one_week(now: datetime, reached: bool) -> None:
    """R26."""
    assert cancel_code(filed(), now) == (None if reached else "TOO_EARLY")


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(("now", "reached"), boundary_instants(FILED + 14 * DAY))
def test_with_an_answer_in_time_cancelling_unlocks_after_two_weeks(now: datetime, reached: bool) -> None:
    """R27."""
    answered = granted(npb.respond_to_npb(filed(), BUYER, "I will pay", FILED + 7 * DAY - SECOND))
    assert cancel_code(answered, now) == (None if reached else "TOO_EARLY")


@pytest.mark.parametrize("late_by", [timedelta(0), SECOND, DAY])
def test_a_late_answer_does_not_lock_again(late_by: timedelta) -> None:
    """R28, A1, A2: an answer at exactly filing + 7 d is late."""
    answered = granted(npb.respond_to_npb(filed(), BUYER, "sorry", FILED + 7 * DAY + late_by))
    assert answered.alert is not None
    assert answered.alert.unlocks_at == FILED + 7 * DAY
    assert cancel_code(answered, FILED + 7 * DAY + late_by) is None


def test_a_late_answer_locks_again_where_the_terms_say_relock() -> None:
    """R29: the mark of the first unlock is taken back, the second unlock is a new event."""
    case = filed(a_case(terms=RELOCK))
    unlocked = granted(unlock_due(case, FILED + 7 * DAY))
    answered = granted(npb.respond_to_npb(unlocked, BUYER, "sorry", FILED + 8 * DAY))
    assert answered.alert is not None
    assert (answered.alert.unlocks_at, answered.alert.unlocked_at) == (FILED + 14 * DAY, None)
    assert cancel_code(answered, FILED + 13 * DAY) == "TOO_EARLY"


def test_a_second_answer_changes_nothing() -> None:
    """R30."""
    once = granted(npb.respond_to_npb(filed(), BUYER, "one", FILED + DAY))
    twice = granted(npb.respond_to_npb(once, BUYER, "two", FILED + 2 * DAY))
    assert twice.alert == once.alert


def test_only_the_buyer_can_answer_and_only_in_npb() -> None:
    """R31."""
    assert code(npb.respond_to_npb(filed(), SELLER, "x", FILED)) == "WRONG_ROLE"
    assert code(npb.respond_to_npb(a_case(), BUYER, "x", FILED)) == "NO_OPEN_ALERT"
    accepted = granted(npb.accept_penalty(filed(), BUYER, FILED + DAY))
    assert code(npb.respond_to_npb(accepted, BUYER, "x", FILED + DAY)) == "WRONG_STATUS"
    assert code(npb.respond_to_npb(filed(), BUYER, " \n", FILED)) == "COMMENT_REQUIRED"


def test_accepting_the_penalty_lets_the_seller_cancel_at_once() -> None:
    """R32."""
    accepted = granted(npb.accept_penalty(filed(), BUYER, FILED + DAY))
    assert accepted.order.status is Status.NPX
    assert cancellation.cancel_basis_for(accepted, SELLER, FILED + DAY) == "NPX"


def test_the_penalty_can_be_accepted_in_npb_only() -> None:
    """R33."""
    assert code(npb.accept_penalty(a_case(), BUYER, FILED)) == "NO_OPEN_ALERT"
    accepted = granted(npb.accept_penalty(filed(), BUYER, FILED))
    assert code(npb.accept_penalty(accepted, BUYER, FILED)) == "WRONG_STATUS"


@pytest.mark.parametrize(
    ("back_after", "unlocks_after"), [(timedelta(days=3), 14), (timedelta(days=7), 7), (timedelta(days=9), 7)]
)
def test_taking_back_the_penalty_counts_as_an_answer(back_after: timedelta, unlocks_after: int) -> None:
    """R34: the 7/14-day rule from the original filing, with the take-back as the response."""
    accepted = granted(npb.accept_penalty(filed(), BUYER, FILED + DAY))
    back = granted(npb.take_back(accepted, BUYER, FILED + back_after))
    assert back.alert is not None
    assert (back.order.status, back.alert.responded_at) == (Status.NPB, FILED + back_after)
    assert back.alert.unlocks_at == FILED + unlocks_after * DAY


def test_taking_back_keeps_an_earlier_answer() -> None:
    """R34: it counts as a response unless one exists."""
    answered = granted(npb.respond_to_npb(filed(), BUYER, "soon", FILED + DAY))
    accepted = granted(npb.accept_penalty(answered, BUYER, FILED + 2 * DAY))
    back = granted(npb.take_back(accepted, BUYER, FILED + 8 * DAY))
    assert back.alert is not None
    assert (back.alert.responded_at, back.alert.unlocks_at) == (FILED + DAY, FILED + 14 * DAY)


def test_taking_back_needs_npx() -> None:
    """R35 and T10: not from NPB, not after the cancellation."""
    assert code(npb.take_back(filed(), BUYER, FILED)) == "WRONG_STATUS"
    accepted = granted(npb.accept_penalty(filed(), BUYER, FILED + DAY))
    cancelled = granted(cancellation.cancel(accepted, SELLER, None, None, FILED + DAY))
    assert code(npb.take_back(cancelled, BUYER, FILED + DAY)) == "ALREADY_CANCELLED"


@pytest.mark.parametrize("actor", [SELLER, STAFF])
@pytest.mark.parametrize("status", [Status.READY, Status.PACKED, Status.OCR])
def test_removing_sets_pending_whatever_the_status_was(actor: object, status: Status) -> None:
    """R36, R37: from NPB and from NPX."""
    before = (
        a_case(status) if status is not Status.OCR else granted(ocr.file_ocr(a_case(), BUYER, "B_MUTUAL", "x", ORDERED))
    )
    for case in (filed(before), granted(npb.accept_penalty(filed(before), BUYER, FILED))):
        removed = granted(alerts.remove_alert(case, AlertKind.NPB, actor, "paid after all", FILED + DAY))  # type: ignore[arg-type]
        assert removed.alert is not None
        assert (removed.order.status, removed.alert.state) == (Status.PENDING, AlertState.REMOVED)


def test_the_buyer_cannot_remove_an_alert() -> None:
    """R38."""
    assert code(alerts.remove_alert(filed(), AlertKind.NPB, BUYER, None, FILED)) == "WRONG_ROLE"


def test_new_alert_after_removal_has_a_new_deadline() -> None:
    """R39."""
    removed = granted(alerts.remove_alert(filed(), AlertKind.NPB, SELLER, None, FILED + 6 * DAY))
    again = filed(removed, FILED + 6 * DAY)
    assert again.alert is not None
    assert again.alert.unlocks_at == FILED + 13 * DAY


def test_eligibility_does_not_depend_on_the_sweep() -> None:
    """R40: cancelling is possible before a sweep marks the alert."""
    case = filed()
    assert case.alert is not None
    assert case.alert.unlocked_at is None
    assert cancel_code(case, FILED + 7 * DAY) is None


@given(
    answer_after=st.none() | st.integers(0, 20 * 86400).map(lambda s: timedelta(seconds=s)),
    asked_after=st.lists(st.integers(0, 30 * 86400).map(lambda s: timedelta(seconds=s)), min_size=2, max_size=2),
    filed_at=st.datetimes(min_value=datetime(2024, 2, 20), max_value=datetime(2028, 3, 2)),  # noqa: DTZ001 - made aware below
)
def test_unlock_is_monotone_and_elapsed_hours(
    answer_after: timedelta | None, asked_after: list[timedelta], filed_at: datetime
) -> None:
    """R26, R27, A1, A4: once possible it stays possible, and only elapsed time since filing counts, in any season."""
    at = filed_at.replace(tzinfo=ORDERED.tzinfo)
    case = filed(a_case(ordered=at - 8 * DAY), at)
    if answer_after is not None:
        case = granted(npb.respond_to_npb(case, BUYER, "x", at + answer_after))
    early, late = sorted(asked_after)
    if cancel_code(case, at + early) is None:
        assert cancel_code(case, at + late) is None
    due = 14 * DAY if answer_after is not None and answer_after < 7 * DAY else 7 * DAY
    assert (cancel_code(case, at + late) is None) == (late >= due)


def test_timeline_of_the_worked_example_to_the_hour() -> None:
    """E2: ordered 28 Mar 10:00Z, fileable 4 Apr 10:00Z, unlock 11 Apr 10:00Z, or 18 Apr if answered at 09:59Z."""
    assert format_timestamp(FILED) == "2026-04-04T10:00:00Z"
    case = filed()
    assert case.alert is not None
    assert format_timestamp(case.alert.unlocks_at) == "2026-04-11T10:00:00Z"
    answered = granted(npb.respond_to_npb(case, BUYER, "x", FILED + 7 * DAY - timedelta(minutes=1)))
    assert answered.alert is not None
    assert format_timestamp(answered.alert.unlocks_at) == "2026-04-18T10:00:00Z"


def filed_npb() -> Case:
    return granted(npb.file_npb(a_case(), SELLER, None, ORDERED + 7 * DAY))


@pytest.mark.parametrize("actor", [SELLER, STAFF])
def test_more_time_moves_the_unlock(actor: Actor) -> None:
    """R122, N22: to the second, and the buyer is notified."""
    case, until = filed_npb(), ORDERED + 20 * DAY
    verdict = npb.extend_npb(case, actor, until, "as agreed", ORDERED + 8 * DAY)
    assert isinstance(verdict, Granted)
    assert [m.payload["event"] for m in verdict.messages] == ["npb_extended"]
    for instant, reached in boundary_instants(until):
        assert (code(cancellation.cancel(verdict.case, SELLER, None, None, instant)) is None) is reached
    accepted = granted(npb.accept_penalty(verdict.case, BUYER, ORDERED + 9 * DAY))
    assert code(cancellation.cancel(accepted, SELLER, None, None, ORDERED + 9 * DAY)) is None


def test_the_later_of_answer_and_extension_counts() -> None:
    """R122, R27: whichever comes first."""
    for until, due in ((ORDERED + 15 * DAY, ORDERED + 21 * DAY), (ORDERED + 30 * DAY, ORDERED + 30 * DAY)):
        extended = granted(npb.extend_npb(filed_npb(), SELLER, until, "as agreed", ORDERED + 8 * DAY))
        answered = granted(npb.respond_to_npb(extended, BUYER, "soon", ORDERED + 9 * DAY))
        assert answered.alert is not None
        assert answered.alert.unlocks_at == due


def test_more_time_is_given_within_limits() -> None:
    """R122: not after the unlock, not backwards, at most 30 days."""
    case, unlock = filed_npb(), ORDERED + 14 * DAY

    def extend(actor: Actor, until: datetime, now: datetime, comment: str = "as agreed") -> Granted | Refused | Invalid:
        return npb.extend_npb(case, actor, until, comment, now)

    assert isinstance(extend(SELLER, unlock + 30 * DAY, unlock - SECOND), Granted)
    assert isinstance(extend(SELLER, unlock + 30 * DAY + SECOND, unlock - SECOND), Invalid)
    assert isinstance(extend(SELLER, unlock + SECOND, unlock - SECOND), Granted)
    assert isinstance(extend(SELLER, unlock, unlock - SECOND), Invalid)
    assert code(extend(SELLER, unlock + DAY, unlock)) == "WRONG_STATUS"
    assert code(extend(SELLER, unlock + DAY, ORDERED, " ")) == "COMMENT_REQUIRED"
    assert code(extend(BUYER, unlock + DAY, ORDERED)) == "WRONG_ROLE"
    assert code(npb.extend_npb(a_case(), SELLER, unlock, "as agreed", ORDERED)) == "NO_OPEN_ALERT"
