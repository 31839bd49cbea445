"""Tests of stock in the database: sales, returns, lot numbers and the stock journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy.exc import IntegrityError

from models import inventory, orders, returns
from models.db.database import Database, connect
from models.stock_moves import StockMoveRow
from policies.returns import plan_return
from tests.models.stock import NOW, a_lot, insert_lots, insert_order, quantities, return_orders
from tests.plugins.stored_rows import load_rows


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's own database."""
    opened = connect(database_url)
    yield opened
    opened.dispose()


def test_units_return_to_their_lot(database: Database) -> None:
    """R66."""
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1), a_lot(2))
        before = list(inventory.stream_lots(conn, "s"))
        insert_order(conn, 100, (2, 4))
        assert quantities(conn) == {1: 10, 2: 6}
        (plan,) = return_orders(conn, 100)
        assert plan.returned.lines == [{"line_no": 1, "returned": 4, "lot_id": 2, "note": None}]
        assert list(inventory.stream_lots(conn, "s")) == before


def test_sold_out_lot_returns_with_a_new_id(database: Database) -> None:
    """R67."""
    with database.transaction() as conn:
        old = a_lot(1, remarks="Box 7", tiers=((5, Decimal("0.0900")),))
        insert_lots(conn, old)
        insert_order(conn, 100, (1, 10))
        assert quantities(conn) == {}
        (plan,) = return_orders(conn, 100)
        (new,) = list(inventory.stream_lots(conn, "s"))
        assert new == replace(old, lot_id=9_000_000_000_000)
        assert plan.lines[0].lot_id == new.lot_id


def test_sold_out_retained_lot_is_in_stockroom_a(database: Database) -> None:
    """R77."""
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1, is_retain=True))
        insert_order(conn, 100, (1, 10))
        (empty,) = list(inventory.stream_lots(conn, "s"))
        assert (empty.quantity, empty.is_stock_room, empty.stock_room_id, empty.auto_stockroom) == (0, True, "A", True)
        (plan,) = return_orders(conn, 100)
        assert plan.returned.lines == [{"line_no": 1, "returned": 10, "lot_id": 1, "note": "RETURNED_TO_STOCKROOM"}]


def test_set_of_orders_creates_one_new_lot_per_item(database: Database) -> None:
    """R75."""
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1), a_lot(2, seller_id="t"))
        insert_order(conn, 100, (1, 4))
        insert_order(conn, 101, (1, 6))
        insert_order(conn, 102, (2, 10))
        plans = return_orders(conn, 100, 101, 102)
        mine, theirs = plans[0].lines[0].lot_id, plans[2].lines[0].lot_id
        assert plans[1].lines[0].lot_id == mine != theirs
        assert (quantities(conn), quantities(conn, "t")) == ({mine: 10}, {theirs: 10})


def test_dry_run_predicts_the_real_run(database: Database) -> None:
    """A dry run's plan names the lot that the real run creates."""
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1), a_lot(2, color_id=6))
        insert_order(conn, 100, (1, 10), (2, 10))
        lines = orders.order_lines_to_return(orders.load_order_lines(conn, [100])[100])
        for _ in range(2):
            stock_view = inventory.load_stock_view(conn, {line.item.key for line in lines}, lock=False)
            (seen,) = returns.preview_planned_returns(conn, [plan_return(100, lines, stock_view)])
        (done,) = return_orders(conn, 100)
        assert seen == done


def test_line_never_returns_twice(database: Database) -> None:
    """R79: a new plan returns nothing, and the journal's key refuses a repeated one."""
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1))
        insert_order(conn, 100, (1, 4))
        (first,) = return_orders(conn, 100)
        (again,) = return_orders(conn, 100)
        assert again.lines[0].returned == 0
    with pytest.raises(IntegrityError, match="uq_stock_moves_returned"), database.transaction() as conn:
        returns.store_planned_returns(conn, [first], NOW)
    with database.transaction() as conn:
        assert quantities(conn) == {1: 10}


def test_journal_adds_up_to_the_stock(database: Database) -> None:
    with database.transaction() as conn:
        insert_lots(conn, a_lot(1))
        insert_order(conn, 100, (1, 4))
        return_orders(conn, 100)
        moves = [(move.kind, move.delta, move.order_id) for move in load_rows(conn, StockMoveRow)]
        assert moves == [("recorded", 10, None), ("sold", -4, 100), ("returned", 4, 100)]
