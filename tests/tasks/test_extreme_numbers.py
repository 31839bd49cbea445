"""Extreme numbers in commands: each is executed or `invalid`, never an error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from models.bills import BillRow
from models.db import database as db
from models.integrity.invariants import query_invariants
from tests.bad_input import GOOD, LINES, PUBLIC, argument_paths, kind_of, replace_argument
from tests.plugins.market import Market

LARGEST = {
    "number": (0, 1, 100, 2**15, 2**31 - 2, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1),
    "amount": ("0.01", "0.0001", "0.00000001", "99999.9999", "9999999999", "9999999999.99", "9999999999.9999",
               "9999999999.99999999", "1000000000", "-9999999999.99"),
}  # fmt: skip
FEE_LIMIT = Decimal(10) ** 12


def extremes(task: str) -> Iterator[tuple[dict[str, Any], tuple[Any, ...], Any]]:
    good = GOOD[task]
    cases = [
        (path, kind_of(str(path[-1]), value)) for path, value in argument_paths(good) if not isinstance(path[-1], int)
    ]
    numbers = [(path, kind) for path, kind in cases if kind in LARGEST]
    for path, kind in numbers:
        for value in LARGEST[kind]:
            yield replace_argument(copy.deepcopy(good), path, value), path, value
    for index in range(len(LARGEST["number"])):
        everywhere = copy.deepcopy(good)
        for path, kind in numbers:
            if not str(path[-1]).endswith("_id"):
                everywhere = replace_argument(everywhere, path, LARGEST[kind][index])
        yield everywhere, ("everything",), index


@pytest.mark.parametrize("task", PUBLIC)
def test_no_accepted_number_overflows_a_column(market: Market, task: str) -> None:
    market.order(1003, [(market.lot(), 10)])
    market.done("removals.request", order_id=1003, member_id="buyer", lines=LINES)
    for number, (arguments, path, value) in enumerate(extremes(task)):
        answer = market.simulation.execute(task, arguments | {"request_id": f"x-{number}"}, f"m-{number}")
        market.simulation.process_outbox()
        assert answer["outcome"] in ("done", "refused", "invalid"), (path, value, answer)


def submit(market: Market, order_id: int, price: str, quantity: int, rate: str) -> dict[str, Any]:
    lot = market.lot(order_id, quantity=quantity, unit_price=price)
    return market.do(
        "orders.submit", order_id=order_id, buyer_id="buyer", seller_id="seller", currency="EUR", usd_rate=rate,
        lines=[{"lot_id": lot, "quantity": quantity}],
    )  # fmt: skip


def test_a_rate_that_makes_an_order_worth_too_much_is_invalid(market: Market) -> None:
    answer = submit(market, 1, "9999999999.0000", 90, "1.2")
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", ["usd_rate"])
    for order_id, rate in enumerate(("9999999999", "9999999999.99999999", "100.0000001"), start=2):
        assert submit(market, order_id, "9999999999.9999", 1, rate)["outcome"] == "invalid"
    answer = submit(market, 9, "9999999999.9999", 1, "99.99999999")
    assert answer["outcome"] == "done"
    assert Decimal(answer["effects"]["fee"]) < FEE_LIMIT


def test_a_batch_that_makes_an_order_worth_too_much_is_invalid(market: Market) -> None:
    assert submit(market, 1, "9999999999.0000", 9, "10")["outcome"] == "done"
    lot = market.lot(77, quantity=9, unit_price="9999999999.0000")
    answer = market.do("orders.add_batch", order_id=1, lines=[{"lot_id": lot, "quantity": 9}])
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", ["lines"])


def test_the_largest_fees_add_up_on_a_bill(market: Market) -> None:
    market.done("terms.apply", terms={"FEE_SLICES": [{"rate": "1"}]}, staff="kim", **{"from": "2026-03-28T10:00:00Z"})
    for order_id in range(1, 6):
        assert submit(market, order_id, "9999999999.9999", 99, "1")["outcome"] == "done"
    lot = market.lot(700, seller_id="other_seller")
    market.done(
        "orders.submit", order_id=7, buyer_id="buyer", seller_id="other_seller", lines=[{"lot_id": lot, "quantity": 1}]
    )
    for day in (datetime(2026, 4, 5, 4, tzinfo=UTC), datetime(2026, 5, 5, 4, tzinfo=UTC)):
        market.at(day).done("bills.issue")
    bills = market.stored(BillRow, billing_month=date(2026, 3, 1))
    assert [(bill.seller_id, bill.total) for bill in bills] == [
        ("other_seller", Decimal("1.00")),
        ("seller", 5 * Decimal("989999999999.99")),
    ]
    with db.current_database().transaction() as conn:
        assert query_invariants(conn, market.simulation.clock.instant) == {}
