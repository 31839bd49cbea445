"""Commands of an order's ordinary life: submit, add a batch, set the status, record a payment."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.inventory import LotRow
from models.orders import OrderLineRow, OrderRow
from tests.plugins.market import FILED, ORDERED, Market

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def test_submitting_takes_stock_snapshots_lots_and_charges_the_fee(market: Market) -> None:
    """R82: 750.00 costs 20.00, charged in the month of the order date."""
    lot = market.lot(quantity=100, unit_price="75.0000", remarks="shelf 4")
    market.order(1003, [(lot, 10)])
    row = market.stored_order()
    assert (row.status, row.payment_status, row.order_date) == ("PENDING", "None", ORDERED)
    assert (row.total, row.fee, str(row.fee_month)) == (Decimal(750), Decimal("20.00"), "2026-03-01")
    assert market.units(lot) == 90
    (line,) = market.stored(OrderLineRow)
    assert (line.line_no, line.quantity, line.snapshot["remarks"]) == (1, 10, "shelf 4")
    (charge,) = market.ledger_lines()
    assert (charge.kind, charge.amount, str(charge.billing_month)) == ("charge", Decimal("20.00"), "2026-03-01")


def test_the_line_price_uses_tier_and_sale(market: Market) -> None:
    lot = market.lot(unit_price="0.1111", tier_quantity1=10, tier_price1="0.1001", sale_rate=33)
    market.order(1, [(lot, 9)])
    market.order(2, [(lot, 10)])
    assert [line.unit_price for line in market.stored(OrderLineRow)] == [Decimal("0.0744"), Decimal("0.0671")]


def test_an_order_in_another_currency_is_charged_in_dollars(market: Market) -> None:
    """R94: the fee base is total times rate."""
    lot = market.lot(unit_price="100.0000")
    market.order(1, [(lot, 1)], currency="EUR", usd_rate="1.0832")
    assert market.stored_order(1).fee == Decimal("3.25")


def test_a_sold_out_lot_is_deleted_and_a_retained_one_moved_to_the_stockroom(market: Market) -> None:
    ordinary_lot, retained_lot = market.lot(501, quantity=5), market.lot(502, quantity=5, is_retain=True)
    market.order(1, [(ordinary_lot, 5), (retained_lot, 5)])
    (lot,) = market.lots()
    assert (lot.lot_id, lot.quantity, lot.is_stock_room, lot.stock_room_id) == (retained_lot, 0, True, "A")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"order_id": 1003}, "ALREADY_EXISTS"),
        ({"buyer_id": "nobody"}, "MEMBER_UNKNOWN"),
        ({"seller_id": "nobody"}, "MEMBER_UNKNOWN"),
        ({"seller_id": "other_seller"}, "LOT_UNKNOWN"),
        ({"lines": [{"lot_id": 99, "quantity": 1}]}, "LOT_UNKNOWN"),
        ({"lines": [{"lot_id": 502, "quantity": 1}]}, "LOT_UNKNOWN"),
        ({"lines": [{"lot_id": 503, "quantity": 1}]}, "LOT_UNKNOWN"),
        ({"lines": [{"lot_id": 501, "quantity": 91}]}, "NOT_ENOUGH_STOCK"),
        ({"lines": [{"lot_id": 501, "quantity": 50}, {"lot_id": 501, "quantity": 50}]}, "NOT_ENOUGH_STOCK"),
    ],
)
def test_what_cannot_be_bought_is_refused_and_changes_nothing(
    market: Market, change: dict[str, Any], expected: str
) -> None:
    market.order(1003, [(market.lot(501), 10)])
    market.lot(502, is_stock_room=True, stock_room_id="B")
    market.lot(503, reserved_for="Somebody")
    before = market.content(LotRow)
    arguments = {"order_id": 2, "buyer_id": "buyer", "seller_id": "seller", "lines": [{"lot_id": 501, "quantity": 1}]}
    assert market.code("orders.submit", **(arguments | change)) == expected
    assert market.content(LotRow) == before
    assert market.count(OrderRow) == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"lines": []}, "lines"),
        ({"lines": [{"lot_id": 501, "quantity": 0}]}, "lines.0.quantity"),
        ({"lines": [{"lot_id": 501, "quantity": -1}]}, "lines.0.quantity"),
        ({"lines": [{"lot_id": 501, "quantity": 1.0}]}, "lines.0.quantity"),
        ({"lines": [{"lot_id": 501, "quantity": True}]}, "lines.0.quantity"),
        ({"lines": [{"lot_id": 501, "quantity": 3}]}, "lines.0.quantity"),
        ({"lines": [{"lot_id": "50l", "quantity": 2}]}, "lines.0.lot_id"),
        ({"buyer_id": "seller"}, "seller_id"),
        ({"usd_rate": 1.5, "currency": "EUR"}, "usd_rate"),
        ({"credit": "-0.01"}, "credit"),
        ({"coupon": 1}, "coupon"),
        ({"usd_rate": "1e2", "currency": "EUR"}, "usd_rate"),
        ({"usd_rate": "-0", "currency": "EUR"}, "usd_rate"),
        ({"usd_rate": "NaN", "currency": "EUR"}, "usd_rate"),
        ({"currency": "eur"}, "currency"),
        ({"order_id": 0}, "order_id"),
        ({"order_id": 2**63}, "order_id"),
        ({"member_id": "buyer"}, "member_id"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_arguments_that_do_not_fit_are_named(market: Market, change: dict[str, Any], path: str) -> None:
    market.lot(501, bulk=2)
    arguments = {"order_id": 2, "buyer_id": "buyer", "seller_id": "seller", "lines": [{"lot_id": 501, "quantity": 2}]}
    answer = market.do("orders.submit", request_id="r-1", **(arguments | change))
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", [path])
    assert market.do("orders.submit", request_id="r-1", **arguments)["outcome"] == "done"


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([9], "invalid"),
        ([10], "done"),
        ([38], "invalid"),
        ([39], "done"),
        ([40], "refused"),
        ([41], "invalid"),
        ([10, 29], "done"),
        ([10, 28], "invalid"),
        ([29, 10], "invalid"),
        ([30, 10], "refused"),
    ],
)
def test_a_bulk_lot_is_sold_in_multiples_or_down_to_its_last_unit(
    market: Market, lines: list[int], outcome: str
) -> None:
    """R105: the rest of a lot sold in tens may be nine; each line sees what the ones before it left."""
    lot = market.lot(501, quantity=39, bulk=10)
    wanted = [{"lot_id": lot, "quantity": quantity} for quantity in lines]
    answer = market.do("orders.submit", order_id=1, buyer_id="buyer", seller_id="seller", lines=wanted)
    assert answer["outcome"] == outcome, answer


def test_lots_reserved_for_the_buyer_can_be_bought(market: Market) -> None:
    lot = market.lot(reserved_for="Buyer")
    market.order(1, [(lot, 1)])


def test_a_buyer_with_an_unpaid_order_cannot_order_in_that_store(market: Market) -> None:
    """R25: in that store, while any order of theirs is NPB; elsewhere they can, and afterwards too."""
    lot = market.lot()
    elsewhere = market.lot(777, seller_id="other_seller")
    market.order(1, [(lot, 1)])
    market.order(2, [(lot, 1)])
    market.at(FILED).done("npb.file", order_id=1, member_id="seller")
    purchase = {"lines": [{"lot_id": lot, "quantity": 1}]}
    assert (
        market.code("orders.submit", order_id=3, buyer_id="buyer", seller_id="seller", **purchase)
        == "BUYER_BLOCKED_IN_STORE"
    )
    assert market.code("orders.add_batch", order_id=2, **purchase) == "BUYER_BLOCKED_IN_STORE"
    market.order(4, [(elsewhere, 1)], seller_id="other_seller")
    market.done("npb.remove", order_id=1, member_id="seller")
    market.order(5, [(lot, 1)])


@pytest.mark.parametrize("member_id", ["buyer", "seller"])
def test_terminated_members_do_not_trade(market: Market, member_id: str) -> None:
    lot = market.lot()
    market.order(1, [(lot, 1)])
    assert market.done("members.terminate", member_id=member_id, staff="kim", comment="fraud") == {"terminated": True}
    assert market.done("members.terminate", member_id=member_id, staff="kim", comment="again") == {}
    purchase = {"lines": [{"lot_id": lot, "quantity": 1}]}
    assert (
        market.code("orders.submit", order_id=2, buyer_id="buyer", seller_id="seller", **purchase)
        == "MEMBER_TERMINATED"
    )
    assert market.code("orders.add_batch", order_id=1, **purchase) == "MEMBER_TERMINATED"
    market.done("members.reinstate", member_id=member_id, staff="kim", comment="cleared")
    market.order(2, [(lot, 1)])


def test_a_batch_restarts_date_payment_and_fee(market: Market) -> None:
    """T21, R20, E6: reversal and new charge in the month of the batch."""
    lot = market.lot(quantity=1000)
    market.order(1, [(lot, 300)])
    market.done("orders.record_payment", order_id=1, payment_status="Sent")
    later = ORDERED + 6 * DAY
    market.at(later).done("orders.add_batch", order_id=1, lines=[{"lot_id": lot, "quantity": 400}])
    row = market.stored_order(1)
    assert (row.status, row.payment_status, row.order_date) == ("UPDATED", "None", later)
    assert (row.total, row.fee, str(row.fee_month)) == (Decimal(700), Decimal("19.00"), "2026-04-01")
    assert [(line.kind, line.amount) for line in market.ledger_lines()] == [
        ("charge", Decimal("9.00")),
        ("reversal", Decimal("-9.00")),
        ("charge", Decimal("19.00")),
    ]
    assert market.at(later + 7 * DAY - SECOND).code("npb.file", order_id=1, member_id="seller") == "TOO_EARLY"
    assert market.at(later + 7 * DAY).code("npb.file", order_id=1, member_id="seller") is None


@pytest.mark.parametrize("status", ["PAID", "PACKED", "SHIPPED", "COMPLETED"])
def test_a_batch_is_refused_after_payment(market: Market, status: str) -> None:
    lot = market.lot()
    market.order(1, [(lot, 1)])
    market.done("orders.set_status", order_id=1, member_id="seller", status=status)
    assert market.code("orders.add_batch", order_id=1, lines=[{"lot_id": lot, "quantity": 1}]) == "WRONG_STATUS"


def test_statuses_are_set_by_the_party_they_belong_to(market: Market) -> None:
    market.order(1)

    def set_by(member_id: str, status: str) -> str | None:
        return market.code("orders.set_status", order_id=1, member_id=member_id, status=status)

    assert set_by("buyer", "RECEIVED") == "WRONG_STATUS"
    assert set_by("buyer", "PROCESSING") == "WRONG_ROLE"
    assert set_by("seller", "RECEIVED") == "WRONG_ROLE"
    assert set_by("seller", "PENDING") == "WRONG_STATUS"
    assert set_by("seller", "CANCELLED") == "WRONG_STATUS"
    assert set_by("stranger", "PAID") == "NOT_A_PARTY"
    assert set_by("nobody", "PAID") == "MEMBER_UNKNOWN"
    assert set_by("seller", "SHIPPED") is None
    assert set_by("seller", "SHIPPED") == "WRONG_STATUS"
    assert set_by("buyer", "RECEIVED") is None
    assert set_by("buyer", "COMPLETED") is None


def test_a_voided_payment_makes_a_paid_order_unpaid_again(market: Market) -> None:
    """T23: PAID goes to READY, and a non-paying buyer alert becomes possible."""
    market.order(1)
    market.done("orders.record_payment", order_id=1, payment_status="Completed")
    market.done("orders.set_status", order_id=1, member_id="seller", status="PAID")
    assert market.at(FILED).code("npb.file", order_id=1, member_id="seller") == "ALREADY_PAID"
    effects = market.done("orders.record_payment", order_id=1, payment_status="None")
    assert effects == {"status": "READY", "payment_status": "None"}
    assert market.code("npb.file", order_id=1, member_id="seller") is None


def test_a_payment_during_an_alert_warns_the_seller(market: Market) -> None:
    """N18: the order stays in NPB until the seller removes the alert."""
    market.order(1)
    market.at(FILED).done("npb.file", order_id=1, member_id="seller")
    market.done("orders.record_payment", order_id=1, payment_status="Received")
    assert market.stored_order(1).status == "NPB"
    assert [notice.event for notice in market.notices(recipient="seller")] == ["payment_during_alert"]
