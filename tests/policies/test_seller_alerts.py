"""Tests of alerts against sellers (R45 to R52)."""

from __future__ import annotations

from datetime import datetime

import pytest

from policies import alerts, cancellation, orders, seller_alerts
from policies.cases import Actor, AlertKind, AlertState, Case
from policies.statuses import ALERT_BLOCKING_STATUSES, OPEN_FLOW, STRIKE_RECIPIENTS, PaymentStatus, Status
from tests.builders import BUYER, DAY, ORDERED, SELLER, STAFF, a_case, boundary_instants, code, granted, with_member

NRS, NSS = AlertKind.NRS, AlertKind.NSS
FILED = ORDERED + 7 * DAY
PAID = {NRS: PaymentStatus.NONE, NSS: PaymentStatus.COMPLETED}
KINDS = pytest.mark.parametrize("kind", [NRS, NSS])


def file(kind: AlertKind, case: Case, at: datetime = FILED, actor: Actor = BUYER) -> object:
    return seller_alerts.file_seller_alert(
        case, kind, actor, "NOT_SHIPPED" if kind is NSS else None, "nothing came", at
    )


def filed(kind: AlertKind, case: Case | None = None) -> Case:
    return granted(file(kind, case or a_case(payment=PAID[kind])))  # type: ignore[arg-type]


@KINDS
@pytest.mark.parametrize(("now", "reached"), boundary_instants(FILED))
def test_fileable_seven_days_after_the_order_date(kind: AlertKind, now: datetime, reached: bool) -> None:
    """R45."""
    assert code(file(kind, a_case(payment=PAID[kind]), now)) == (None if reached else "TOO_EARLY")


@KINDS
@pytest.mark.parametrize("actor", [SELLER, STAFF])
def test_only_the_buyer_files(kind: AlertKind, actor: Actor) -> None:
    """R45."""
    assert code(file(kind, a_case(payment=PAID[kind]), FILED, actor)) == "WRONG_ROLE"


@KINDS
@pytest.mark.parametrize("status", ALERT_BLOCKING_STATUSES)
def test_only_one_alert_can_be_open(kind: AlertKind, status: Status) -> None:
    """R45, R50: NRS cannot become NSS without removal first."""
    expected = "ALREADY_CANCELLED" if status is Status.CANCELLED else "ORDER_HAS_PROBLEM"
    assert code(file(kind, a_case(status, payment=PAID[kind]))) == expected


@pytest.mark.parametrize("payment", list(PaymentStatus))
def test_nrs_is_for_unpaid_and_nss_for_paid_orders(payment: PaymentStatus) -> None:
    assert code(file(NRS, a_case(payment=payment))) == ("ALREADY_PAID" if payment.is_paid else None)
    assert code(file(NSS, a_case(payment=payment))) == (None if payment.is_paid else "NOT_PAID")


@KINDS
@pytest.mark.parametrize("status", [s for s in OPEN_FLOW if s not in (Status.PENDING, Status.UPDATED)])
def test_the_seller_cannot_change_the_status(kind: AlertKind, status: Status) -> None:
    """R46."""
    expected = "WRONG_ROLE" if status is Status.RECEIVED else "ORDER_HAS_PROBLEM"
    assert code(orders.set_order_status(filed(kind), SELLER, status)) == expected


@KINDS
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(("now", "reached"), boundary_instants(FILED + 14 * DAY))
def test_the_buyer_cancels_after_two_weeks_whatever_the_seller_answers(
    kind: AlertKind, answered: bool, now: datetime, reached: bool
) -> None:
    """R47, R48, A18."""
    case = filed(kind)
    if answered:
        case = granted(seller_alerts.respond_to_seller_alert(case, kind, SELLER, "it is on its way", FILED + DAY))
    assert code(cancellation.cancel(case, BUYER, None, None, now)) == (None if reached else "TOO_EARLY")


@KINDS
@pytest.mark.parametrize("actor", [BUYER, STAFF])
def test_removing_leads_to_pending(kind: AlertKind, actor: Actor) -> None:
    """R49: also for an order that was paid or shipped before."""
    case = filed(kind, a_case(Status.SHIPPED, payment=PAID[kind]))
    removed = granted(alerts.remove_alert(case, kind, actor, None, FILED + DAY))
    assert removed.alert is not None
    assert (removed.order.status, removed.alert.state) == (Status.PENDING, AlertState.REMOVED)
    assert removed.order.payment_status is PAID[kind]


@KINDS
def test_the_seller_cannot_remove_it(kind: AlertKind) -> None:
    assert code(alerts.remove_alert(filed(kind), kind, SELLER, None, FILED)) == "WRONG_ROLE"


def test_removing_the_other_kind_finds_nothing() -> None:
    assert code(alerts.remove_alert(filed(NRS), NSS, BUYER, None, FILED)) == "NO_OPEN_ALERT"


@KINDS
def test_the_seller_cannot_cancel_except_when_the_buyer_is_terminated(kind: AlertKind) -> None:
    """R52: then the alert is superseded without a strike."""
    late = FILED + 30 * DAY
    assert code(cancellation.cancel(filed(kind), SELLER, None, None, late)) == "WRONG_ROLE"
    cancelled = granted(cancellation.cancel(with_member(filed(kind), buyer_terminated=True), SELLER, None, None, late))
    assert cancelled.alert is not None
    assert (cancelled.order.basis, cancelled.alert.state) == ("BUYER_TERMINATED", AlertState.SUPERSEDED)


@KINDS
def test_cancelling_completes_the_alert_and_gives_the_seller_a_strike(kind: AlertKind) -> None:
    """T17, R96; R64 and R85: nothing is returned."""
    cancelled = granted(cancellation.cancel(filed(kind), BUYER, None, None, FILED + 14 * DAY))
    assert cancelled.alert is not None
    assert cancelled.order.basis is not None
    assert cancelled.alert.state is AlertState.COMPLETED
    assert STRIKE_RECIPIENTS.get(cancelled.order.basis) == "seller"
    assert not cancellation.returns_items(cancelled.order.basis, seller_terminated=False)
