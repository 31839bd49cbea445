"""Tests of stock under concurrent sales and returns, with real transactions that wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from models.db.database import Database, connect
from policies.lots import Lot
from tests.models.stock import a_lot, insert_lots, insert_order, quantities, return_orders


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's database, with three connections."""
    opened = connect(database_url, pool_size=3)
    yield opened
    opened.dispose()


@contextmanager
def hold_transaction(
    database: Database, first: Callable[[Connection], object]
) -> Iterator[Callable[..., Future[object]]]:
    """Run `first` and keep its transaction open; work that is started inside must wait for it."""
    with ThreadPoolExecutor(1) as pool, database.transaction() as holder:
        first(holder)
        pid = holder.execute(text("SELECT pg_backend_pid()")).scalar_one()

        def start(second: Callable[[Connection], object]) -> Future[object]:
            def run() -> object:
                with database.transaction() as conn:
                    return second(conn)

            waiting = pool.submit(run)
            with database.transaction() as watcher:
                # Not pg_stat_activity: what it shows is frozen for the length of a transaction.
                blocked = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND :pid = ANY(pg_blocking_pids(pid))")
                while not watcher.execute(blocked, {"pid": pid}).scalar_one():
                    assert not waiting.done(), "it did not wait"
            return waiting

        yield start


def insert_stock(database: Database, *stock: Lot, sold: list[tuple[int, int, int]]) -> None:
    """Insert lots, and orders given as (order, lot, units)."""
    with database.transaction() as conn:
        insert_lots(conn, *stock)
        for order_id, lot_id, units in sold:
            insert_order(conn, order_id, (lot_id, units))


def remaining(database: Database) -> dict[int, int]:
    with database.transaction() as conn:
        return quantities(conn)


def test_sale_during_a_return_loses_no_unit(database: Database) -> None:
    """R78."""
    insert_stock(database, a_lot(1), sold=[(100, 1, 4)])
    with hold_transaction(database, lambda conn: return_orders(conn, 100)) as start:
        sale = start(lambda conn: insert_order(conn, 101, (1, 5)))
    sale.result()
    assert remaining(database) == {1: 5}


def test_return_during_a_sale_loses_no_unit(database: Database) -> None:
    """R78."""
    insert_stock(database, a_lot(1), sold=[(100, 1, 4)])
    with hold_transaction(database, lambda conn: insert_order(conn, 101, (1, 5))) as start:
        second_return = start(lambda conn: return_orders(conn, 100))
    second_return.result()
    assert remaining(database) == {1: 5}


def test_return_to_a_lot_that_sells_out_creates_a_new_one(database: Database) -> None:
    """The lot is gone once the sale commits."""
    insert_stock(database, a_lot(1), sold=[(100, 1, 4)])
    with hold_transaction(database, lambda conn: insert_order(conn, 101, (1, 6))) as start:
        second_return = start(lambda conn: return_orders(conn, 100))
    second_return.result()
    assert remaining(database) == {9_000_000_000_000: 4}


def test_concurrent_returns_to_one_lot_both_count(database: Database) -> None:
    insert_stock(database, a_lot(1), sold=[(100, 1, 4), (101, 1, 3)])
    with hold_transaction(database, lambda conn: return_orders(conn, 100)) as start:
        second_return = start(lambda conn: return_orders(conn, 101))
    second_return.result()
    assert remaining(database) == {1: 10}


def test_concurrent_returns_create_one_new_lot(database: Database) -> None:
    """A lot that doesn't exist can't be row-locked; its item can."""
    insert_stock(database, a_lot(1), sold=[(100, 1, 4), (101, 1, 6)])
    assert remaining(database) == {}
    with hold_transaction(database, lambda conn: return_orders(conn, 100)) as start:
        second_return = start(lambda conn: return_orders(conn, 101))
    second_return.result()
    assert remaining(database) == {9_000_000_000_000: 10}


def test_concurrent_returns_of_one_order_count_once(database: Database) -> None:
    """R79: the second return waits and finds nothing remaining."""
    insert_stock(database, a_lot(1), sold=[(100, 1, 4)])

    def locked_return(conn: Connection) -> object:
        conn.execute(text("SELECT FROM unwind.orders WHERE order_id = 100 FOR NO KEY UPDATE"))
        return return_orders(conn, 100)

    with hold_transaction(database, locked_return) as start:
        second_return = start(locked_return)
    second_return.result()
    assert remaining(database) == {1: 10}


def test_orders_of_two_lots_in_opposite_order_do_not_deadlock(database: Database) -> None:
    insert_stock(database, a_lot(1), a_lot(2, color_id=7), sold=[])
    with hold_transaction(database, lambda conn: insert_order(conn, 100, (2, 1), (1, 1))) as start:
        second_order = start(lambda conn: insert_order(conn, 101, (1, 1), (2, 1)))
    second_order.result()
    assert remaining(database) == {1: 8, 2: 8}
