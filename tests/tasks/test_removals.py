"""Removal requests: made by one party, decided by the other."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.orders import OrderLineRow
from tests.plugins.market import FILED, ORDERED, Market

DAY = timedelta(days=1)


@pytest.fixture
def bought(market: Market) -> Market:
    """Order 1003: line 1 of ten units at 30.00, line 2 of five at 60.00, submitted on 28 March."""
    market.order(
        1003, [(market.lot(501, unit_price="30.0000"), 10), (market.lot(502, color_id=9, unit_price="60.0000"), 5)]
    )
    return market


def ask(market: Market, *lines: tuple[int, int], member_id: str = "buyer", **extra: Any) -> dict[str, Any]:
    lines_ = [{"line_no": line_no, "quantity": quantity} for line_no, quantity in lines]
    return market.do("removals.request", order_id=1003, member_id=member_id, lines=lines_, **extra)


def test_an_approved_removal_restarts_date_payment_and_fee(bought: Market) -> None:
    """T20, R20, A21: new order date, payment None, fee of what remains; by default the items return."""
    removal = ask(bought, (1, 4))["effects"]["removal_id"]
    bought.done("orders.record_payment", order_id=1003, payment_status="Sent")
    later = ORDERED + 6 * DAY
    effects = bought.at(later).done("removals.approve", removal_id=removal, member_id="seller")
    assert (effects["removal_id"], effects["state"], effects["status"]) == (removal, "approved", "UPDATED")
    row = bought.stored_order()
    assert (row.status, row.payment_status, row.order_date, row.total) == ("UPDATED", "None", later, Decimal(480))
    assert (row.fee, str(row.fee_month)) == (Decimal("14.40"), "2026-04-01")
    assert bought.units(501) == 94
    assert [(line.kind, line.amount) for line in bought.ledger_lines()] == [
        ("charge", Decimal("17.00")),
        ("reversal", Decimal("-17.00")),
        ("charge", Decimal("14.40")),
    ]
    assert (
        bought.at(later + 7 * DAY - timedelta(seconds=1)).code("npb.file", order_id=1003, member_id="seller")
        == "TOO_EARLY"
    )
    assert bought.at(later + 7 * DAY).code("npb.file", order_id=1003, member_id="seller") is None


def test_an_outdated_request_says_what_no_longer_fits(bought: Market) -> None:
    """R80, A11: the decider named no lines, so the answer names them."""
    first, second = (ask(bought, (1, units), (2, 1))["effects"]["removal_id"] for units in (8, 7))
    bought.done("removals.approve", removal_id=first, member_id="seller")
    answer = bought.do("removals.approve", removal_id=second, member_id="seller")
    (error,) = answer["errors"]
    assert (answer["outcome"], error["path"]) == ("invalid", "removal_id")
    assert "7 of line 1 are to be taken out, and 2 remain" in error["message"]
    assert "line 2" not in error["message"]


def test_what_remains_keeps_the_price_of_its_purchase(market: Market) -> None:
    """R106: a tier is not chosen again, whatever the lot costs by now."""
    lot = market.lot(501, unit_price="2.0000", tier_quantity1=50, tier_price1="1.5000")
    market.order(1003, [(lot, 60)])
    removal = ask(market, (1, 40))["effects"]["removal_id"]
    market.lot(501, quantity=40, unit_price="9.0000")
    market.done("removals.approve", removal_id=removal, member_id="seller")
    order, (line,) = market.stored_order(), market.stored(OrderLineRow)
    assert (order.total, order.fee, line.unit_price) == (Decimal(30), Decimal("0.90"), Decimal("1.5000"))


@pytest.mark.parametrize("by", ["buyer", "seller"])
def test_units_removed_without_return_never_come_back(bought: Market, by: str) -> None:
    """R80: the Return box is the seller's, when asking or when approving."""
    extra = {"return_items": False} if by == "seller" else {}
    removal = ask(bought, (1, 4), member_id=by, **extra)["effects"]["removal_id"]
    other_party, decision = ("seller", {"return_items": False}) if by == "buyer" else ("buyer", {})
    bought.done("removals.approve", removal_id=removal, member_id=other_party, **decision)
    assert bought.units(501) == 90
    bought.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    lines = bought.done("orders.cancel", order_id=1003, member_id="seller")["lines"]
    assert [line["returned"] for line in lines] == [6, 5]
    assert bought.units(501) == 96


def test_only_the_other_party_decides(bought: Market) -> None:
    removal = ask(bought, (1, 1))["effects"]["removal_id"]
    for task in ("removals.approve", "removals.deny"):
        assert bought.code(task, removal_id=removal, member_id="buyer") == "WRONG_ROLE"
    assert bought.code("removals.withdraw", removal_id=removal, member_id="seller") == "WRONG_ROLE"
    assert bought.code("removals.deny", removal_id=removal, member_id="stranger") == "NOT_A_PARTY"
    assert bought.code("removals.deny", removal_id=999, member_id="seller") == "REMOVAL_UNKNOWN"
    assert bought.code("removals.withdraw", removal_id=removal, member_id="buyer") is None
    for task, member_id in (
        ("removals.approve", "seller"),
        ("removals.deny", "seller"),
        ("removals.withdraw", "buyer"),
    ):
        assert bought.code(task, removal_id=removal, member_id=member_id) == "REMOVAL_NOT_PENDING"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(1, 10), (2, 5)], "NOTHING_WOULD_REMAIN"),
        ([(1, 11)], "lines.0.quantity"),
        ([(3, 1)], "lines.0.line_no"),
        ([(1, 0)], "lines.0.quantity"),
        ([(1, 1), (1, 1)], "lines"),
        ([], "lines"),
    ],
)
def test_an_impossible_removal_is_refused(bought: Market, lines: list[tuple[int, int]], expected: str) -> None:
    answer = ask(bought, *lines)
    assert expected in (answer["code"], *(e["path"] for e in answer["errors"]))


def test_the_buyer_does_not_decide_about_the_return(bought: Market) -> None:
    assert ask(bought, (1, 1), return_items=True)["errors"][0]["path"] == "return_items"
    removal = ask(bought, (1, 1), member_id="seller")["effects"]["removal_id"]
    answer = bought.do("removals.approve", removal_id=removal, member_id="buyer", return_items=True)
    assert answer["errors"][0]["path"] == "return_items"


def test_two_requests_for_one_line_are_checked_when_approved(bought: Market) -> None:
    first, second = (ask(bought, (1, 6))["effects"]["removal_id"] for _ in range(2))
    bought.done("removals.approve", removal_id=first, member_id="seller")
    answer = bought.do("removals.approve", removal_id=second, member_id="seller")
    assert (answer["outcome"], answer["errors"][0]["path"]) == ("invalid", "removal_id")


def test_no_removal_while_a_case_is_open(bought: Market) -> None:
    """A11: neither asked for nor approved; denying and withdrawing stay possible."""
    waiting, denied = (ask(bought, (1, 1))["effects"]["removal_id"] for _ in range(2))
    bought.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    assert ask(bought, (1, 1))["code"] == "ORDER_HAS_PROBLEM"
    assert bought.code("removals.approve", removal_id=waiting, member_id="seller") == "ORDER_HAS_PROBLEM"
    assert bought.code("removals.deny", removal_id=denied, member_id="seller") is None


def test_every_decision_is_on_the_timeline(bought: Market) -> None:
    """R100."""
    removal = ask(bought, (1, 1))["effects"]["removal_id"]
    bought.done("removals.deny", removal_id=removal, member_id="seller")
    assert [(event.seq, event.type, event.actor, event.role) for event in bought.events(order_id=1003)] == [
        (1, "orders.submitted", "marketplace", "system"),
        (2, "removals.requested", "buyer", "buyer"),
        (3, "removals.denied", "seller", "seller"),
    ]
