"""Automatic NPB alerts: to the second, only where nothing speaks against them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policies import alerts, automatic_acts, automation, npb, orders, seller_alerts
from policies.cases import AlertKind
from policies.statuses import PaymentStatus, Status
from policies.terms import DEFAULT_TERMS
from policies.verdicts import Event, Granted, Refused
from tests.builders import BUYER, DAY, ORDERED, SECOND, SELLER, boundary_instants, code, granted, with_member
from tests.policies.automated_cases import FILED, files_at, unpaid


@pytest.mark.parametrize("days", [7, 8, 60])
def test_an_unpaid_order_gets_an_alert_so_many_days_after_its_date(days: int) -> None:
    """R115, R119, N21: to the second, as the seller's own, and the seller is notified."""
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
    assert verdict.event is not None
    assert f"file_npb_after = {days} days" in verdict.event.note


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
    """R115: not again after its removal, no matter who filed it, until the order date moves."""
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
