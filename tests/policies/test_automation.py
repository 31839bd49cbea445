"""Automatic acts of a seller's settings: to the second, only where nothing speaks against them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from policies import alerts, automatic_acts, automation, cancellation, npb, ocr, orders, seller_alerts
from policies.cases import NO_AUTOMATION, AlertKind, Automation, Case, Setting
from policies.statuses import CancelBasis, PaymentStatus, Status
from policies.term_settings import format_silence, terms_from_mapping, terms_to_mapping
from policies.terms import DEFAULT_TERMS, OcrSilence
from policies.verdicts import Event, Granted, Invalid, Refused
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
    with_member,
)
from tests.random_cases import random_life

SET_AT = ORDERED - DAY
FILED = ORDERED + 7 * DAY
UNLOCKED = FILED + 7 * DAY
THREE_DAYS = Setting(3, SET_AT)


def automated(case: Case, **settings: Setting | None) -> Case:
    values: dict[str, Any] = settings or {"cancel_after_unlock": THREE_DAYS}
    seller = replace(case.seller, automation=replace(case.seller.automation, **values))
    return automation.with_deadlines(replace(case, seller=seller))


def filed(days: int = 3) -> Case:
    return automated(granted(npb.file_npb(a_case(), SELLER, None, FILED)), cancel_after_unlock=Setting(days, SET_AT))


def cancels_at(case: Case) -> datetime | None:
    """The deadline as it is stored, announced and acted on, which are one."""
    case = automation.with_deadlines(case)
    due = automation.cancels_at(case)
    assert case.alert is None or case.alert.cancels_at == due
    assert [a.at for a in automation.list_announced_acts(case) if a.setting == "cancel_after_unlock"] == (
        [due] if due else []
    )
    return due


@pytest.mark.parametrize("days", [0, 1, 3, 30])
def test_an_unpaid_order_is_cancelled_so_many_days_after_its_unlock(days: int) -> None:
    """R116, R119: to the second, with the strike and the ground of the seller's own cancellation."""
    case = filed(days)
    due = UNLOCKED + days * DAY
    assert cancels_at(case) == due
    for instant, reached in boundary_instants(due):
        verdict = automatic_acts.cancel_automatically(case, instant)
        assert isinstance(verdict, Granted) is reached, instant
    verdict = automatic_acts.cancel_automatically(case, due)
    assert isinstance(verdict, Granted)
    order = verdict.case.order
    assert (order.status, order.basis, order.cancelled_by) == (Status.CANCELLED, CancelBasis.NPB, "automation")
    assert f"cancel_after_unlock = {days} day" in verdict.events[0].note
    assert "2026-03-27T10:00:00Z" in verdict.events[0].note
    own = cancellation.cancel(case, SELLER, None, None, due)
    assert isinstance(own, Granted)
    assert replace(own.case, order=replace(own.case.order, cancelled_by="automation")) == verdict.case


def test_an_accepted_penalty_counts_from_its_acceptance() -> None:
    """R116: also when the alert had matured before."""
    for accepted_at in (FILED + DAY, UNLOCKED + DAY):
        case = granted(npb.accept_penalty(filed(), BUYER, accepted_at))
        assert cancels_at(case) == accepted_at + 3 * DAY
        assert code(automatic_acts.cancel_automatically(case, accepted_at + 3 * DAY - SECOND)) == "WRONG_STATUS"
        verdict = automatic_acts.cancel_automatically(case, accepted_at + 3 * DAY)
        assert isinstance(verdict, Granted)
        assert verdict.case.order.basis is CancelBasis.NPX
        back = granted(npb.take_back(case, BUYER, accepted_at + DAY))
        assert back.alert is not None
        assert cancels_at(back) == back.alert.unlocks_at + 3 * DAY


def test_an_answer_in_time_moves_the_cancellation() -> None:
    """R116, R27: by a week, and a late one does not."""
    assert cancels_at(granted(npb.respond_to_npb(filed(), BUYER, "soon", UNLOCKED - SECOND))) == FILED + 17 * DAY
    assert cancels_at(granted(npb.respond_to_npb(filed(), BUYER, "soon", UNLOCKED))) == FILED + 10 * DAY


@pytest.mark.parametrize("payment", [status for status in PaymentStatus if status is not PaymentStatus.NONE])
def test_any_payment_stops_the_cancellation(payment: PaymentStatus) -> None:
    """R116, R121: also one that only the buyer claims; a voided one lets it come."""
    case = granted(orders.record_order_payment(filed(), payment, FILED))
    assert cancels_at(case) is None
    assert code(automatic_acts.cancel_automatically(case, UNLOCKED + 30 * DAY)) == "WRONG_STATUS"
    assert cancels_at(granted(orders.record_order_payment(case, PaymentStatus.NONE, FILED))) == UNLOCKED + 3 * DAY


@pytest.mark.parametrize(
    "case",
    [
        automated(filed(), cancel_after_unlock=None),
        with_member(filed(), seller_terminated=True),
        automated(a_case()),
        automated(granted(alerts.remove_alert(filed(), AlertKind.NPB, SELLER, None, FILED))),
        automated(granted(seller_alerts.file_seller_alert(a_case(), AlertKind.NRS, BUYER, None, "silent", FILED))),
        automated(granted(cancellation.cancel(filed(), SELLER, None, None, UNLOCKED))),
    ],
    ids=["off", "terminated", "no alert", "removed", "NRS", "cancelled"],
)
def test_nothing_is_cancelled_without_a_setting_and_an_open_alert_of_the_seller(case: Case) -> None:
    """R114, R116, R118."""
    assert cancels_at(case) is None
    assert isinstance(automatic_acts.cancel_automatically(case, UNLOCKED + 60 * DAY), Refused)


def test_an_excluded_buyer_is_never_touched() -> None:
    """R118."""
    seller = replace(
        filed().seller, automation=Automation(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"other", "buyer"}))
    )
    assert cancels_at(replace(filed(), seller=seller)) is None
    other = replace(seller, automation=Automation(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"other"})))
    assert cancels_at(replace(filed(), seller=other)) == UNLOCKED + 3 * DAY


def test_a_hold_keeps_automation_from_an_order_until_it_ends() -> None:
    """R118, R121: by the seller or staff; a hold with an end moves the deadline there."""
    held = automation.hold_automation(filed(), SELLER, None, "in hospital", FILED)
    assert isinstance(held, Granted)
    assert cancels_at(held.case) is None
    assert isinstance(automatic_acts.cancel_automatically(held.case, UNLOCKED + 60 * DAY), Refused)
    released = automation.release_automation_hold(held.case, STAFF, "well again", UNLOCKED + 5 * DAY)
    assert isinstance(released, Granted)
    assert cancels_at(released.case) == UNLOCKED + 3 * DAY
    for until, due in (
        (UNLOCKED + 2 * DAY, UNLOCKED + 3 * DAY),
        (UNLOCKED + 3 * DAY, UNLOCKED + 3 * DAY),
        (UNLOCKED + 3 * DAY + SECOND, UNLOCKED + 3 * DAY + SECOND),
    ):
        verdict = automation.hold_automation(held.case, STAFF, until, "a little longer", FILED)
        assert isinstance(verdict, Granted)
        assert cancels_at(verdict.case) == due
        assert isinstance(automatic_acts.cancel_automatically(verdict.case, due - SECOND), Refused)
        assert isinstance(automatic_acts.cancel_automatically(verdict.case, due), Granted)


def test_only_the_seller_and_staff_hold_an_open_order() -> None:
    """R118: and a hold ends once."""
    case = filed()
    until = FILED + DAY
    assert code(automation.hold_automation(case, BUYER, None, "please", FILED)) == "WRONG_ROLE"
    assert code(automation.hold_automation(case, STRANGER, None, "please", FILED)) == "NOT_A_PARTY"
    assert code(automation.hold_automation(case, SELLER, None, " ", FILED)) == "COMMENT_REQUIRED"
    assert automation.hold_automation(case, SELLER, FILED, "wait", FILED) == Invalid("until", "must be in the future")
    assert code(automation.release_automation_hold(case, SELLER, "go on", FILED)) == "WRONG_STATUS"
    held = granted(automation.hold_automation(case, SELLER, until, "wait", FILED))
    assert code(automation.release_automation_hold(held, BUYER, "go on", FILED)) == "WRONG_ROLE"
    assert code(automation.release_automation_hold(held, SELLER, " ", FILED)) == "COMMENT_REQUIRED"
    assert code(automation.release_automation_hold(held, SELLER, "go on", until - SECOND)) is None
    assert code(automation.release_automation_hold(held, SELLER, "go on", until)) == "WRONG_STATUS"
    cancelled = granted(cancellation.cancel(case, SELLER, None, None, UNLOCKED))
    assert code(automation.hold_automation(cancelled, SELLER, None, "wait", UNLOCKED)) == "ALREADY_CANCELLED"
    assert code(automation.release_automation_hold(cancelled, SELLER, "go on", UNLOCKED)) == "ALREADY_CANCELLED"


def test_a_terminated_buyer_is_cancelled_through_the_alert() -> None:
    """R116, R53: the setting waits for its time, although the seller could cancel at once."""
    case = automation.with_deadlines(with_member(filed(), buyer_terminated=True))
    assert code(automatic_acts.cancel_automatically(case, UNLOCKED)) == "WRONG_STATUS"
    verdict = automatic_acts.cancel_automatically(case, UNLOCKED + 3 * DAY)
    assert isinstance(verdict, Granted)
    assert verdict.case.order.basis is CancelBasis.NPB


def unpaid(days: int = 7, **fields: Any) -> Case:
    return automated(a_case(**fields), file_npb_after=Setting(days, SET_AT))


def files_at(case: Case) -> datetime | None:
    case = automation.with_deadlines(case)
    due = automation.files_npb_at(case)
    assert case.order.files_npb_at == due
    assert [a.at for a in automation.list_announced_acts(case) if a.act == "npb.file"] == ([due] if due else [])
    return due


@pytest.mark.parametrize("days", [7, 8, 60])
def test_an_unpaid_order_gets_an_alert_so_many_days_after_its_date(days: int) -> None:
    """R115, R119, N21: to the second, as the seller's own, and the seller is told."""
    case = unpaid(days)
    due = ORDERED + days * DAY
    assert files_at(case) == due
    for instant, reached in boundary_instants(due):
        assert isinstance(automatic_acts.file_automatically(case, instant), Granted) is reached, instant
    verdict, own = automatic_acts.file_automatically(case, due), npb.file_npb(case, SELLER, None, due)
    assert isinstance(verdict, Granted)
    assert isinstance(own, Granted)
    assert verdict.case == own.case
    assert [m.payload["event"] for m in verdict.messages] == ["npb_filed", "npb_filed_automatically"]
    assert f"file_npb_after = {days} days" in verdict.events[0].note


@pytest.mark.parametrize("status", list(Status))
def test_an_alert_is_filed_wherever_the_seller_could(status: Status) -> None:
    """R115, R21, R22: also over a cancel request."""
    case = unpaid(status=status)
    due = ORDERED + 7 * DAY
    possible = code(npb.file_npb(case, SELLER, None, due)) is None
    assert files_at(case) == (due if possible else None)
    assert isinstance(automatic_acts.file_automatically(case, due), Granted) is possible


@pytest.mark.parametrize("payment", [status for status in PaymentStatus if status is not PaymentStatus.NONE])
def test_no_alert_is_filed_for_a_payment_however_uncertain(payment: PaymentStatus) -> None:
    """R115, R121: the seller could file one over a claimed payment, automation does not."""
    assert files_at(unpaid(payment=payment)) is None


@pytest.mark.parametrize("filed_by_seller", [True, False])
def test_an_alert_is_filed_once_for_each_order_date(filed_by_seller: bool) -> None:
    """R115: not again after its removal, whoever filed it, until the order date moves."""
    case, due = unpaid(), ORDERED + 7 * DAY
    own, automatic = npb.file_npb(case, SELLER, None, due), automatic_acts.file_automatically(case, due)
    alert = granted(own if filed_by_seller else automatic)
    removed = granted(alerts.remove_alert(alert, AlertKind.NPB, SELLER, None, due + DAY))
    assert files_at(removed) is None
    batch = Event("orders.batch_added")
    again = granted(orders.restart_order(removed, total=removed.order.total, event=batch, now=due + DAY))
    assert files_at(again) == due + 8 * DAY


def test_another_alert_in_between_does_not_use_up_the_filing() -> None:
    """R115, R21: an NRS that its buyer removed leaves the order unpaid."""
    nrs = granted(seller_alerts.file_seller_alert(unpaid(), AlertKind.NRS, BUYER, None, "silent", FILED))
    assert files_at(nrs) is None
    assert files_at(granted(alerts.remove_alert(nrs, AlertKind.NRS, BUYER, None, FILED))) == ORDERED + 7 * DAY


def test_longer_terms_and_a_hold_move_the_filing() -> None:
    """R115, R118, R19: the first time at which the rules allow it."""
    long = replace(DEFAULT_TERMS, npb_file_after=timedelta(days=10))
    assert files_at(unpaid(terms=long)) == ORDERED + 10 * DAY
    early = replace(unpaid(), terms=long)
    assert isinstance(automatic_acts.file_automatically(early, ORDERED + 10 * DAY - SECOND), Refused)
    held = automation.hold_automation(unpaid(), SELLER, ORDERED + 9 * DAY, "wait", ORDERED)
    assert isinstance(held, Granted)
    assert files_at(held.case) == ORDERED + 9 * DAY
    assert files_at(with_member(unpaid(), seller_terminated=True)) is None


def asked(
    *, hours: int | None = 24, silence: OcrSilence | None = None, at: datetime = ORDERED + DAY, **fields: Any
) -> Case:
    """The buyer's cancel request, by default a day after the order date."""
    terms = replace(DEFAULT_TERMS, ocr_silence=silence)
    case = granted(ocr.file_ocr(a_case(terms=terms, **fields), BUYER, "B_MUTUAL", "please", at))
    return automated(case, agree_to_requests_within=None if hours is None else Setting(hours, SET_AT))


AGREE, DECLINE = OcrSilence(agrees=True, after=5 * DAY), OcrSilence(agrees=False, after=5 * DAY)
ASKED = ORDERED + DAY


def answer_of(case: Case) -> tuple[str, datetime] | None:
    """The automatic answer as it is stored and announced, which are one."""
    case = automation.with_deadlines(case)
    own = (automation.OCR_SILENCE, "agree_to_requests_within")
    answers = [(a.act, a.at) for a in automation.list_announced_acts(case) if a.setting in own]
    stored = case.ocr and {"orders.cancel": case.ocr.agrees_at, "ocr.decline": case.ocr.declines_at}
    assert dict(answers) == {act: at for act, at in (stored or {}).items() if at is not None}
    return answers[0] if answers else None


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
    assert f"agree_to_requests_within = {hours} hour" in verdict.events[0].note


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
def test_a_request_without_an_answer_is_answered_by_the_terms(silence: OcrSilence) -> None:
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
    assert f"OCR_SILENCE = {format_silence(silence)}, in force on 2026-03-29T10:00:00Z" in verdict.events[0].note
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


def test_a_setting_keeps_its_date_until_its_value_changes() -> None:
    """R114: what is not named stays, null switches off."""
    later = SET_AT + DAY
    first = automation.change_automation_settings(NO_AUTOMATION, {"cancel_after_unlock": 3}, ["b-1"], SET_AT)
    assert first == Automation(cancel_after_unlock=Setting(3, SET_AT), excluded=frozenset({"b-1"}))
    assert automation.change_automation_settings(first, {}, None, later) == first
    assert automation.change_automation_settings(first, {"cancel_after_unlock": 3}, ["b-1"], later) == first
    assert automation.change_automation_settings(
        first, {"cancel_after_unlock": 0}, None, later
    ).cancel_after_unlock == Setting(0, later)
    off = automation.change_automation_settings(first, {"cancel_after_unlock": None}, [], later)
    assert off == NO_AUTOMATION
    assert automation.describe_setting_changes(first, off) == (
        "Automation: cancel_after_unlock: 3 → off; excluded buyers: 1 → 0."
    )


@pytest.mark.parametrize(
    "settings",
    [
        NO_AUTOMATION,
        Automation(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"b", "a"})),
        Automation(cancel_after_unlock=THREE_DAYS),
    ],
)
def test_settings_survive_their_storage(settings: Automation) -> None:
    assert automation.settings_from_json(automation.settings_to_json(settings)) == settings
    assert automation.settings_from_json(None) == NO_AUTOMATION


def test_a_buyer_is_warned_only_while_there_is_time_to_pay() -> None:
    """N20, R120."""

    def warning(now: datetime) -> object:
        return automation.cancellation_warning(
            order_id=1, alert_id=7, buyer_id="buyer", cancels_at=UNLOCKED, accepted=False, now=now
        )

    assert warning(UNLOCKED - automation.WARN_BEFORE_CANCELLATION)
    assert warning(UNLOCKED - SECOND)
    assert warning(UNLOCKED) is None


def check_answers(case: Case, now: datetime) -> None:
    """R117, R123, R119."""
    answer = answer_of(case) if case.open_ocr else None
    for name, act in (
        ("orders.cancel", automatic_acts.agree_automatically),
        ("ocr.decline", automatic_acts.decline_automatically),
    ):
        if answer is None or answer[0] != name:
            assert isinstance(act(case, now + 90 * DAY), Refused)
            continue
        assert case.order.status is Status.OCR
        assert isinstance(act(case, answer[1] - SECOND), Refused)
        verdict = act(case, answer[1])
        assert isinstance(verdict, Granted)
        assert (verdict.case.order.basis is CancelBasis.OCR_BUYER) is (name == "orders.cancel")


@pytest.mark.parametrize("seed", range(150))
def test_what_is_announced_is_what_happens(seed: int) -> None:
    """R119, R121: over random lives: at the announced time, not a second earlier, and never otherwise."""
    random = Random(seed)
    setting = Setting(random.choice((0, 1, 3, 30)), SET_AT)
    agree = random.choice((None, Setting(168, SET_AT)))
    silence = random.choice((None, AGREE, DECLINE))
    for step in random_life(seed):
        before = step.before
        if before.ocr is not None:
            terms = replace(before.ocr.terms, ocr_silence=silence)
            before = replace(before, ocr=replace(before.ocr, terms=terms))
        case = automated(
            before,
            cancel_after_unlock=setting,
            file_npb_after=Setting(7, SET_AT),
            agree_to_requests_within=agree,
        )
        check_answers(case, step.now)
        files = files_at(case)
        if files is not None:
            assert isinstance(automatic_acts.file_automatically(case, files - SECOND), Refused)
            assert isinstance(automatic_acts.file_automatically(case, files), Granted)
        else:
            assert isinstance(automatic_acts.file_automatically(case, step.now + 90 * DAY), Refused)
        due = cancels_at(case)
        if due is None:
            for wait in (timedelta(0), 60 * DAY):
                assert isinstance(automatic_acts.cancel_automatically(case, step.now + wait), Refused)
            continue
        assert case.order.payment_status is PaymentStatus.NONE
        assert case.order.status in (Status.NPB, Status.NPX)
        assert isinstance(automatic_acts.cancel_automatically(case, due - SECOND), Refused)
        verdict = automatic_acts.cancel_automatically(case, due)
        assert isinstance(verdict, Granted)
        assert verdict.case.order.basis in (CancelBasis.NPB, CancelBasis.NPX)
        # No earlier than a person could.
        assert code(cancellation.cancel(case, SELLER, None, None, due)) is None
