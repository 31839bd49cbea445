"""Tests of stock under concurrent sales and returns, with real transactions that wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from models.db.database import Database, connect
from policies.lots import Lot
from tests.plugins.stock import a_lot, insert_lots, insert_order, quantities, return_orders


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's own database, with room for three at once."""
    opened = connect(database_url, pool_size=3)
    yield opened
    opened.dispose()


@contextmanager
def while_held(database: Database, first: Callable[[Connection], object]) -> Iterator[Callable[..., Future[object]]]:
    """Do `first` and keep its transaction open; what is started inside must wait for it, and is let go at the end."""
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


def stocked(database: Database, *stock: Lot, sold: list[tuple[int, int, int]]) -> None:
    """These lots, and orders of (order, lot, units)."""
    with database.transaction() as conn:
        insert_lots(conn, *stock)
        for order_id, lot_id, units in sold:
            insert_order(conn, order_id, (lot_id, units))


def left(database: Database) -> dict[int, int]:
    with database.transaction() as conn:
        return quantities(conn)


def test_a_sale_during_a_return_loses_no_unit(database: Database) -> None:
    """R78."""
    stocked(database, a_lot(1), sold=[(100, 1, 4)])
    with while_held(database, lambda conn: return_orders(conn, 100)) as start:
        sale = start(lambda conn: insert_order(conn, 101, (1, 5)))
    sale.result()
    assert left(database) == {1: 5}


def test_a_return_during_a_sale_loses_no_unit(database: Database) -> None:
    """R78."""
    stocked(database, a_lot(1), sold=[(100, 1, 4)])
    with while_held(database, lambda conn: insert_order(conn, 101, (1, 5))) as start:
        back = start(lambda conn: return_orders(conn, 100))
    back.result()
    assert left(database) == {1: 5}


def test_a_return_to_a_lot_that_is_being_sold_out_makes_a_new_one(database: Database) -> None:
    """The lot is gone when the sale commits."""
    stocked(database, a_lot(1), sold=[(100, 1, 4)])
    with while_held(database, lambda conn: insert_order(conn, 101, (1, 6))) as start:
        back = start(lambda conn: return_orders(conn, 100))
    back.result()
    assert left(database) == {9_000_000_000_000: 4}


def test_two_returns_to_one_lot_at_once_both_count(database: Database) -> None:
    stocked(database, a_lot(1), sold=[(100, 1, 4), (101, 1, 3)])
    with while_held(database, lambda conn: return_orders(conn, 100)) as start:
        back = start(lambda conn: return_orders(conn, 101))
    back.result()
    assert left(database) == {1: 10}


def test_two_returns_that_need_a_new_lot_at_once_make_one(database: Database) -> None:
    """A lot that does not exist yet cannot be row-locked, its item can."""
    stocked(database, a_lot(1), sold=[(100, 1, 4), (101, 1, 6)])
    assert left(database) == {}
    with while_held(database, lambda conn: return_orders(conn, 100)) as start:
        back = start(lambda conn: return_orders(conn, 101))
    back.result()
    assert left(database) == {9_000_000_000_000: 10}


def test_returning_one_order_twice_at_once_adds_its_units_once(database: Database) -> None:
    """R79: the second waits, and finds nothing left to return."""
    stocked(database, a_lot(1), sold=[(100, 1, 4)])

    def locked_return(conn: Connection) -> object:
        conn.execute(text("SELECT FROM unwind.orders WHERE order_id = 100 FOR NO KEY UPDATE"))
        return return_orders(conn, 100)

    with while_held(database, locked_return) as start:
        back = start(locked_return)
    back.result()
    assert left(database) == {1: 10}


def test_nobody_deadlocks_over_two_lots_in_opposite_order(database: Database) -> None:
    """Lots are locked by id, whoever names them in whatever order."""
    stocked(database, a_lot(1), a_lot(2, color_id=7), sold=[])
    with while_held(database, lambda conn: insert_order(conn, 100, (2, 1), (1, 1))) as start:
        other = start(lambda conn: insert_order(conn, 101, (1, 1), (2, 1)))
    other.result()
    assert left(database) == {1: 8, 2: 8}
