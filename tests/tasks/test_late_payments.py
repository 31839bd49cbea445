"""Payments for cancelled orders on a real database: rows, events, emails, lists and the doctor's boundary."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from models import late_payments
from models.events import EventRow
from models.late_payments import LatePaymentRow
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, WEEK, Market
from workers import show_queries

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
PAID = FILED + WEEK + DAY


@pytest.fixture
def cancelled(market: Market) -> Market:
    """Order 1003, cancelled through an NPB; its payment arrives a day later."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK).done("orders.cancel", order_id=1003, member_id="seller")
    return market.at(PAID)


def pay(market: Market, status: str = "Received") -> dict[str, Any]:
    return market.done("orders.record_payment", order_id=1003, payment_status=status)


def settle(market: Market, **who: str) -> dict[str, Any]:
    return market.do("orders.settle_late_payment", order_id=1003, comment="sent back today", **who)


def see(market: Market, *words: str | int) -> Any:
    with market.simulation.database.transaction() as conn:
        return show_queries.parse_query(words).read(conn, market.simulation.clock.instant)


def test_a_payment_for_a_cancelled_order_leaves_a_row_an_event_and_two_emails(cancelled: Market) -> None:
    """R107, N19: and nothing of the order changes."""
    before = see(cancelled, "order", 1003)
    assert pay(cancelled) == {"status": "CANCELLED", "late_payment": "Received"}
    seen = see(cancelled, "order", 1003)
    for name in ("status", "payment_status", "basis", "lines", "fee", "alert"):
        assert seen[name] == before[name], name
    late = {"payment_status": "Received", "recorded_at": format_timestamp(PAID), "settled_at": None, "settled_by": None}
    assert seen["late_payment"] == late
    event = seen["timeline"][-1]
    assert (event["event"], event["from"], event["to"]) == ("orders.paid_after_cancellation", "CANCELLED", "CANCELLED")
    texts = {n["recipient"]: n["text"] for n in seen["notices"] if n["event"] == "payment_after_cancellation"}
    assert set(texts) == {"seller", "buyer"}
    assert "send it back" in texts["seller"]
    assert "asked the seller" in texts["buyer"]
    assert "the seller has to send the money back" in seen["verdict"]
    parties = {role: {"member_id": role, "handle": role.capitalize()} for role in ("seller", "buyer")}
    listed = {"order_id": 1003, "seller_id": "seller", "buyer_id": "buyer", "payment_status": "Received"} | parties
    assert see(cancelled, "late-payments") == [listed | {"recorded_at": format_timestamp(PAID)}]


def test_a_settled_late_payment_leaves_the_list_and_stays_in_the_order(cancelled: Market) -> None:
    """R107: by the seller or by staff; before and after, `show order --at` tells what was known."""
    pay(cancelled)
    assert settle(cancelled, member_id="buyer")["code"] == "WRONG_ROLE"
    assert settle(cancelled, member_id="stranger")["code"] == "NOT_A_PARTY"
    cancelled.at(PAID + DAY)
    answer = settle(cancelled, member_id="seller")
    assert answer["effects"] == {"settled_at": format_timestamp(PAID + DAY)}
    assert see(cancelled, "late-payments") == []
    assert settle(cancelled, staff="kim")["code"] == "NO_LATE_PAYMENT"
    for at, settled_by in ((PAID - SECOND, False), (PAID, None), (PAID + DAY - SECOND, None), (PAID + DAY, "seller")):
        late = see(cancelled, "order", 1003, "--at", format_timestamp(at))["late_payment"]
        assert (late and late["settled_by"]) == (None if settled_by is False else settled_by), at
        assert (late is None) == (settled_by is False), at
    pay(cancelled, "Received")
    payments = cancelled.stored(LatePaymentRow)
    assert [(late.settled_by, late.comment) for late in payments] == [("seller", "sent back today"), (None, None)]


def test_a_claimed_payment_that_arrives_is_one_late_payment(cancelled: Market) -> None:
    """R107, R108, N19: claimed, pending, received, repeated: one row, and notices of the claim and of the payment."""
    for status in ("Sent", "Pending", "Received", "Received", "Completed"):
        pay(cancelled, status)
    assert [late.payment_status for late in cancelled.stored(LatePaymentRow)] == ["Completed"]
    notices = cancelled.notices(event="payment_after_cancellation")
    assert sorted(notice.recipient for notice in notices) == ["buyer", "buyer", "seller", "seller"]
    assert cancelled.count(EventRow, type="orders.paid_after_cancellation") == 4


def test_the_same_report_twice_is_one_effect(cancelled: Market) -> None:
    """R107: the payment service repeats itself under one request id."""
    first, again = (
        cancelled.do("orders.record_payment", order_id=1003, payment_status="Sent", request_id="pay-1") for _ in "12"
    )
    assert again == first | {"replayed": True}
    assert cancelled.count(LatePaymentRow) == 1


@pytest.mark.parametrize(("after", "overdue"), [(3 * DAY - SECOND, []), (3 * DAY, [1003]), (3 * DAY + SECOND, [1003])])
def test_a_late_payment_is_overdue_after_three_days(cancelled: Market, after: timedelta, overdue: list[int]) -> None:
    """R107: what the doctor warns of."""
    pay(cancelled)
    with cancelled.simulation.database.transaction() as conn:
        assert late_payments.list_overdue_late_payments(conn, PAID + after) == overdue
    settle(cancelled, staff="kim")
    with cancelled.simulation.database.transaction() as conn:
        assert late_payments.list_overdue_late_payments(conn, PAID + after) == []


def test_what_can_be_settled_is_an_option(cancelled: Market) -> None:
    """R107: for the seller, not for the buyer, and not before there is a payment."""

    def option(member_id: str) -> tuple[bool, str | None]:
        options = cancelled.done("orders.options", order_id=1003, member_id=member_id)["options"]
        (found,) = [option for option in options if option["action"] == "orders.settle_late_payment"]
        return found["possible"], found["code"]

    assert option("seller") == (False, "NO_LATE_PAYMENT")
    pay(cancelled)
    assert option("seller") == (True, None)
    assert option("buyer") == (False, "WRONG_ROLE")


def test_a_pending_payment_does_not_keep_the_seller_from_filing(market: Market) -> None:
    """R108, R23: Paid-Pending is a payment under way, like Sent."""
    market.order(1003)
    market.done("orders.record_payment", order_id=1003, payment_status="Pending")
    assert market.stored_order().payment_status == "Pending"
    assert (
        market.at(FILED).code("nss.file", order_id=1003, member_id="buyer", grounds="NOT_SHIPPED", comment="x")
        == "NOT_PAID"
    )
    assert market.code("npb.file", order_id=1003, member_id="seller") is None
