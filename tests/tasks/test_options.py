"""The options of a party or staff for an order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from models.events import EventRow
from models.orders import OrderRow
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market


def ask(market: Market, **arguments: Any) -> dict[str, dict[str, Any]]:
    effects = market.done("orders.options", order_id=1003, **arguments)
    return {option["action"]: option for option in effects["options"]}


def test_unknown_orders_unknown_members_and_strangers_are_refused(market: Market) -> None:
    """R18, in the order of precedence."""
    market.order(1003)
    assert market.code("orders.options", order_id=9, member_id="buyer") == "ORDER_UNKNOWN"
    assert market.code("orders.options", order_id=1003, member_id="nobody") == "MEMBER_UNKNOWN"
    assert market.code("orders.options", order_id=1003, member_id="stranger") == "NOT_A_PARTY"


def test_options_change_nothing(market: Market) -> None:
    market.order(1003)
    before = market.content(OrderRow, EventRow)
    ask(market, member_id="seller")
    assert market.content(OrderRow, EventRow) == before


def test_each_option_has_the_shape_of_the_contract(market: Market) -> None:
    market.order(1003)
    option = ask(market, member_id="seller")["npb.file"]
    assert option == {
        "action": "npb.file",
        "possible": False,
        "code": "TOO_EARLY",
        "why": option["why"],
        "possible_from": format_timestamp(ORDERED + WEEK),
        "unblocked_by": "time alone",
    }


def test_the_option_to_cancel_opens_when_due_without_a_sweep(market: Market) -> None:
    """R40: the option appears at the due time, without any sweep."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK - timedelta(seconds=1))
    assert ask(market, member_id="seller")["orders.cancel"]["possible_from"] == format_timestamp(FILED + WEEK)
    market.at(FILED + WEEK)
    assert ask(market, member_id="seller")["orders.cancel"]["possible"]
    assert market.code("orders.cancel", order_id=1003, member_id="seller") is None


def test_staff_sees_what_staff_may_do(market: Market) -> None:
    """R37, R118, R122: removing an alert, giving more time and holding the order against automation."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    possible = [option["action"] for option in ask(market, staff="kim").values() if option["possible"]]
    assert possible == ["npb.extend", "npb.remove", "orders.hold_automation"]


def test_a_pending_removal_can_be_decided_by_the_other_party(market: Market) -> None:
    market.order(1003)
    removal = market.done("removals.request", order_id=1003, member_id="buyer", lines=[{"line_no": 1, "quantity": 1}])
    options = ask(market, member_id="seller")
    assert options["removals.approve"]["removal_id"] == removal["removal_id"]
    assert (options["removals.approve"]["possible"], options["removals.withdraw"]["possible"]) == (True, False)
    market.done("removals.approve", removal_id=removal["removal_id"], member_id="seller")
    assert "removals.approve" not in ask(market, member_id="seller")


def test_the_same_question_under_the_same_id_has_the_same_answer(market: Market) -> None:
    market.order(1003)
    first = market.do("orders.options", order_id=1003, member_id="seller", request_id="q-1")
    market.at(FILED)
    again = market.do("orders.options", order_id=1003, member_id="seller", request_id="q-1")
    assert (again["effects"], again["replayed"]) == (first["effects"], True)
