"""Returns to a lot that has no room: the cancellation is parked for staff and writes nothing."""

from __future__ import annotations

from typing import Any

from models.events import EventRow
from models.inventory import LotRow
from models.members import StrikeRow
from models.ocr import OcrRow
from models.orders import OrderLineRow, OrderRow
from models.outbox import OutboxRow
from models.stock_moves import StockMoveRow
from tests.plugins.market import Market

FULL = 2**31 - 1


def cancellable_order(market: Market, order_id: int, lot_id: int) -> dict[str, Any]:
    market.order(order_id, [(lot_id, 10)])
    market.done("ocr.file", order_id=order_id, member_id="seller", reason="S_MUTUAL", comment="Agreed.")
    return {"order_id": order_id, "member_id": "seller"}


TABLES = (OrderRow, OrderLineRow, LotRow, StockMoveRow, EventRow, OutboxRow, OcrRow, StrikeRow)


def test_a_return_that_does_not_fit_writes_nothing_and_is_parked(market: Market) -> None:
    command = cancellable_order(market, 1003, market.lot(1))
    market.lot(1, quantity=FULL - 9)
    before = market.content(*TABLES)
    for _ in range(2):
        answer = market.do("orders.cancel", **command, request_id="r-1")
        assert (answer["outcome"], answer["errors"][0]["path"]) == ("invalid", "order_id")
    assert market.content(*TABLES) == before
    (dead,) = market.dead_jobs()
    assert (dead.task, dead.arguments) == ("orders.cancel", command | {"request_id": "r-1", "dry_run": False})
    market.lot(1, quantity=FULL - 10)
    assert market.do("orders.cancel", **command, request_id="r-1")["outcome"] == "done"
    assert market.units() == FULL


def test_other_orders_of_the_batch_are_cancelled(market: Market) -> None:
    full, fine = (
        cancellable_order(market, 1003, market.lot(1)),
        cancellable_order(market, 1004, market.lot(2, color_id=7)),
    )
    market.lot(1, quantity=FULL)
    answers = market.done("orders.cancel_many", orders=[full, fine])["answers"]
    assert [answer["outcome"] for answer in answers] == ["invalid", "done"]


def test_a_dry_run_reports_it_and_parks_nothing(market: Market) -> None:
    command = cancellable_order(market, 1003, market.lot(1))
    market.lot(1, quantity=FULL)
    assert market.do("orders.cancel", **command, dry_run=True)["outcome"] == "invalid"
    assert market.dead_jobs() == []
