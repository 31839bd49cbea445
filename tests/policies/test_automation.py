"""Automatic cancellation and its settings: to the second, only where nothing speaks against it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace

import pytest

from policies import alerts, automatic_acts, automation, automation_settings, cancellation, npb, orders, seller_alerts
from policies.automation_settings import NO_AUTOMATION, AutomationSetting, AutomationSettings
from policies.cases import AlertKind, Case
from policies.statuses import CancelBasis, PaymentStatus, Status
from policies.verdicts import Granted, Invalid, Refused
from tests.builders import (
    BUYER,
    DAY,
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
from tests.policies.automated_cases import (
    AGREE,
    DECLINE,
    FILED,
    SET_AT,
    THREE_DAYS,
    UNLOCKED,
    answer_of,
    automated,
    cancels_at,
    filed,
    files_at,
)
from tests.random_cases import random_life


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
    assert verdict.event is not None
    assert f"cancel_after_unlock = {days} day" in verdict.event.note
    assert "2026-03-27T10:00:00Z" in verdict.event.note
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
        filed().seller,
        automation=AutomationSettings(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"other", "buyer"})),
    )
    assert cancels_at(replace(filed(), seller=seller)) is None
    other = replace(
        seller, automation=AutomationSettings(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"other"}))
    )
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


def test_a_setting_keeps_its_date_until_its_value_changes() -> None:
    """R114: what is not named stays, null switches off."""
    later = SET_AT + DAY
    first = automation_settings.change_automation_settings(NO_AUTOMATION, {"cancel_after_unlock": 3}, ["b-1"], SET_AT)
    assert first == AutomationSettings(cancel_after_unlock=AutomationSetting(3, SET_AT), excluded=frozenset({"b-1"}))
    assert automation_settings.change_automation_settings(first, {}, None, later) == first
    assert automation_settings.change_automation_settings(first, {"cancel_after_unlock": 3}, ["b-1"], later) == first
    assert automation_settings.change_automation_settings(
        first, {"cancel_after_unlock": 0}, None, later
    ).cancel_after_unlock == AutomationSetting(0, later)
    off = automation_settings.change_automation_settings(first, {"cancel_after_unlock": None}, [], later)
    assert off == NO_AUTOMATION
    assert automation_settings.describe_setting_changes(first, off) == (
        "Automation: cancel_after_unlock: 3 → off; excluded buyers: 1 → 0."
    )


@pytest.mark.parametrize(
    "settings",
    [
        NO_AUTOMATION,
        AutomationSettings(cancel_after_unlock=THREE_DAYS, excluded=frozenset({"b", "a"})),
        AutomationSettings(cancel_after_unlock=THREE_DAYS),
    ],
)
def test_settings_survive_their_storage(settings: AutomationSettings) -> None:
    assert automation_settings.settings_from_json(automation_settings.settings_to_json(settings)) == settings
    assert automation_settings.settings_from_json(None) == NO_AUTOMATION


def test_a_buyer_is_warned_only_while_there_is_time_to_pay() -> None:
    """N20, R120."""

    def warning(now: datetime) -> object:
        alert = SimpleNamespace(order_id=1, alert_id=7, buyer_id="buyer", cancels_at=UNLOCKED, penalty_stands=False)
        return automation.automatic_cancellation_warning(alert, now)

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
    setting = AutomationSetting(random.choice((0, 1, 3, 30)), SET_AT)
    agree = random.choice((None, AutomationSetting(168, SET_AT)))
    silence = random.choice((None, AGREE, DECLINE))
    for step in random_life(seed):
        before = step.before
        if before.ocr is not None:
            terms = replace(before.ocr.terms, ocr_silence=silence)
            before = replace(before, ocr=replace(before.ocr, terms=terms))
        case = automated(
            before,
            cancel_after_unlock=setting,
            file_npb_after=AutomationSetting(7, SET_AT),
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
