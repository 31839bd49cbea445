"""Builders of cases for tests without a database, with BrickLink's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from policies.alerts import UNLOCKED_NOTE
from policies.cases import Actor, Case, Member, Order
from policies.statuses import PaymentStatus, Status
from policies.terms import DEFAULT_TERMS, Terms
from policies.verdicts import Event, Granted, Invalid, Refused, Verdict

ORDERED = datetime(2026, 3, 28, 10, tzinfo=UTC)
BUYER, SELLER, STRANGER, STAFF = Actor("buyer"), Actor("seller"), Actor("stranger"), Actor(staff="kim")
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def a_case(
    status: Status = Status.PENDING,
    *,
    payment: PaymentStatus = PaymentStatus.NONE,
    ordered: datetime = ORDERED,
    terms: Terms = DEFAULT_TERMS,
) -> Case:
    """An order of 750.00 by `buyer` from `seller`."""
    order = Order(
        order_id=1003,
        buyer_id="buyer",
        seller_id="seller",
        status=status,
        payment_status=payment,
        order_date=ordered,
        total=Decimal("750.00"),
        fee=Decimal("20.00"),
        fee_month=ordered.date().replace(day=1),
        version=1,
        last_event_at=ordered,
    )
    return Case(order, Member("buyer", "Bea"), Member("seller", "Sam"), terms)


def unlock_due(case: Case, now: datetime) -> Granted | None:
    """The case as the sweep of `tasks/alerts.py` leaves it; None if it does not unlock its alert."""
    alert = case.open_alert
    if alert is None or alert.unlocked_at is not None or alert.penalty_stands or now < alert.unlocks_at:
        return None
    unlocked = replace(case, alert=replace(alert, unlocked_at=now))
    return Granted(unlocked, event=Event(f"{alert.kind.lower()}.unlocked", UNLOCKED_NOTE))


def granted(verdict: Verdict | None) -> Case:
    """Return the case of a granted verdict, with its event counted."""
    assert isinstance(verdict, Granted), verdict
    order = verdict.case.order
    return replace(verdict.case, order=replace(order, version=order.version + (verdict.event is not None)))


def refused(verdict: object) -> Refused:
    assert isinstance(verdict, Refused), verdict
    return verdict


def code(verdict: object) -> str | None:
    """Return the code of a refusal, None if granted."""
    assert not isinstance(verdict, Invalid), verdict
    return verdict.code if isinstance(verdict, Refused) else None


def with_member(case: Case, *, buyer_terminated: bool = False, seller_terminated: bool = False) -> Case:
    return replace(
        case,
        buyer=replace(case.buyer, terminated=buyer_terminated),
        seller=replace(case.seller, terminated=seller_terminated),
    )


def boundary_instants(instant: datetime) -> Sequence[tuple[datetime, bool]]:
    """One second before, at and after a boundary, with whether the boundary is reached."""
    return [(instant - SECOND, False), (instant, True), (instant + SECOND, True)]
