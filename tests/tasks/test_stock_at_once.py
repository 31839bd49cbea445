"""Stock adds up after many concurrent purchases and cancellations."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import Connection

from models.db import database as db
from models.inventory import KEY_COLUMNS
from models.orders import OrderLineRow, OrderRow
from models.stock_moves import StockMoveRow
from tests.plugins.market import ORDERED
from tests.plugins.stored_rows import StoredRows
from workers.app import app
from workers.simulation.engine import SimulatedClock

key_of = attrgetter(*KEY_COLUMNS)


class ConcurrentMarket(StoredRows):
    def __init__(self, database: db.Database) -> None:
        self.database = database
        self._numbers = itertools.count(1)

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = app.tasks[task].validate_and_run(arguments, f"message-{next(self._numbers)}")
        return answer

    def run_concurrently(self, task: str, many: list[dict[str, Any]]) -> Counter[str]:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda arguments: self.do(task, **arguments), many))
        return Counter(answer["code"] or answer["outcome"] for answer in answers)

    def read(self) -> AbstractContextManager[Connection]:
        return self.database.transaction()

    def unaccounted_units(self) -> dict[tuple[Any, ...], int]:
        """By item, how many units are in the lots and not in the journal."""
        units: Counter[tuple[Any, ...]] = Counter()
        for lot in self.lots():
            units[key_of(lot)] += lot.quantity
        for move in self.stored(StockMoveRow):
            units[key_of(move)] -= move.delta
        return {key: difference for key, difference in units.items() if difference}

    def unreturned_lines(self) -> list[OrderLineRow]:
        """The lines of cancelled orders of which some units did not come back."""
        return self.stored(
            OrderLineRow,
            OrderLineRow.order_id.in_(self.column(OrderRow.order_id, status="CANCELLED")),
            OrderLineRow.quantity != OrderLineRow.returned + OrderLineRow.removed,
        )


@pytest.fixture
def market(database_url: str) -> Iterator[ConcurrentMarket]:
    database = db.connect(database_url, clock=SimulatedClock(ORDERED), pool_size=4)
    db.set_database(database)
    opened = ConcurrentMarket(database)
    for member in ("seller", "buyer"):
        opened.do("members.record", member_id=member, handle=member, email=f"{member}@example.org")
    lot = {
        "lot_id": 1,
        "seller_id": "seller",
        "item": {"no": "3001", "type": "PART"},
        "color_id": 5,
        "quantity": 60,
        "new_or_used": "N",
        "unit_price": "1.0000",
    }
    opened.do("inventory.record_lot", lot=lot)
    yield opened
    db.set_database(None)
    database.dispose()


def purchase(number: int, quantity: int) -> dict[str, Any]:
    return {
        "order_id": number,
        "buyer_id": "buyer",
        "seller_id": "seller",
        "lines": [{"lot_id": 1, "quantity": quantity}],
        "request_id": f"buy-{number}",
    }


def test_a_lot_is_sold_out_exactly_and_comes_back_as_one(market: ConcurrentMarket) -> None:
    """R78: twenty orders of five from sixty at once, then all of them cancelled at once."""
    bought = market.run_concurrently("orders.submit", [purchase(number, 5) for number in range(1, 21)])
    assert bought == {"done": 12, "LOT_UNKNOWN": 8}  # the lot is gone when it is sold out
    assert market.lots() == []
    orders = market.column(OrderRow.order_id)
    request = {"member_id": "seller", "reason": "S_MUTUAL", "comment": "Agreed with the buyer by mail."}
    market.run_concurrently("ocr.file", [request | {"order_id": n, "request_id": f"ocr-{n}"} for n in orders])
    commands = [{"order_id": n, "member_id": "seller", "request_id": f"cancel-{n}"} for n in orders]
    assert market.run_concurrently("orders.cancel", commands * 2) == {
        "done": 24
    }  # each asked twice, answered the same, done once
    assert [lot.quantity for lot in market.lots()] == [60]
    assert market.unaccounted_units() == {}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_units_are_conserved_over_random_histories(market: ConcurrentMarket, seed: int) -> None:
    chance = random.Random(seed)
    clock = market.database.clock
    assert isinstance(clock, SimulatedClock)
    number = 0
    for _ in range(4):
        batch = []
        for _ in range(6):
            number += 1
            batch.append(purchase(number, chance.randint(1, 9)))
        market.run_concurrently("orders.submit", batch)
        orders = market.column(OrderRow.order_id, status="PENDING")
        removed = [n for n in orders if chance.random() < 0.4]
        for n in removed:
            line = [{"line_no": 1, "quantity": 1}]
            commands = market.do(
                "removals.request", order_id=n, member_id="buyer", lines=line, request_id=f"ask-{n}-{number}"
            )
            if commands["outcome"] == "done":
                market.do(
                    "removals.approve",
                    removal_id=commands["effects"]["removal_id"],
                    member_id="seller",
                    return_items=chance.random() < 0.5,
                    request_id=f"approve-{n}-{number}",
                )
        doomed = [n for n in orders if chance.random() < 0.5]
        request = {"member_id": "seller", "reason": "S_MUTUAL", "comment": "Agreed with the buyer by mail."}
        for n in doomed:
            market.do("ocr.file", **request, order_id=n, request_id=f"ocr-{n}")
        cancels = [{"order_id": n, "member_id": "seller", "request_id": f"cancel-{n}"} for n in doomed]
        market.run_concurrently("orders.cancel", cancels)
        clock.instant += timedelta(hours=1)
        assert market.unaccounted_units() == {}
    assert market.unreturned_lines() == []
    assert set(market.column(StockMoveRow.kind)) == {"recorded", "sold", "returned"}
