"""Tests that the references write the same rows as the product."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from benchmarks import reference_writes
from benchmarks.harness import WorkMismatch
from benchmarks.market import Market, build
from models.db import database as db
from models.integrity import invariants
from tests.plugins.market import Market as Commands
from tests.plugins.servers import libpq_url
from workers.simulation.engine import Simulation

MARKET = Market(orders=200, stores=2)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        build(connection, MARKET)
        reference_writes.install(connection)
        yield connection


@pytest.fixture
def now(conn: psycopg.Connection) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    instant: datetime = row[0]
    return instant.astimezone(UTC)


def cancel(database_url: str, now: datetime, order_id: int) -> None:
    with Simulation(database_url, at=now) as simulation:
        answer = simulation.do("orders.cancel", order_id=order_id, member_id=f"s-{(order_id - 1) // 100}")
    assert answer["outcome"] == "done", answer


def test_generated_market_satisfies_the_invariants(conn: psycopg.Connection, database_url: str, now: datetime) -> None:
    conn.execute("SELECT bench.cancel_orders(ARRAY[1::bigint, 2], 'test')")
    cancel(database_url, now, 101)
    database = db.connect(database_url)
    try:
        with database.transaction() as connection:
            assert not invariants.query_invariants(connection, now, in_time=False)
    finally:
        database.dispose()


def test_generated_items_have_the_lock_rows_that_recording_leaves(
    conn: psycopg.Connection, database_url: str, now: datetime
) -> None:
    count = "SELECT count(*) FROM unwind.item_locks"
    recorded = conn.execute(count).fetchone()
    assert recorded == (MARKET.sellers * 100 * MARKET.lines,)
    cancel(database_url, now, 101)
    assert conn.execute(count).fetchone() == recorded


def test_reference_leaves_the_same_rows(conn: psycopg.Connection, database_url: str, now: datetime) -> None:
    conn.execute("SELECT bench.cancel_orders(ARRAY[1::bigint], 'test')")
    cancel(database_url, now, 101)
    reference_writes.check(conn, 1, 1, MARKET.lines)
    reference_writes.check(conn, 101, 101, MARKET.lines)
    reference_writes.check_alike(conn, 101, 1)


def test_missing_rows_are_reported(conn: psycopg.Connection) -> None:
    conn.execute("SELECT bench.cancel_orders(ARRAY[1::bigint, 2], 'test')")
    reference_writes.check(conn, 1, 2, MARKET.lines)
    with pytest.raises(WorkMismatch, match="orders 1 to 3"):
        reference_writes.check(conn, 1, 3, MARKET.lines)
    conn.execute("DELETE FROM unwind.outbox WHERE key = 'fee:2'")
    with pytest.raises(WorkMismatch, match="outbox"):
        reference_writes.check(conn, 1, 2, MARKET.lines)
    with pytest.raises(WorkMismatch, match="outbox"):
        reference_writes.check_alike(conn, 1, 2)


def test_generated_events_have_the_fields_of_the_commands(
    conn: psycopg.Connection, database_url: str, now: datetime
) -> None:
    with Simulation(database_url, at=now) as simulation:
        market = Commands(simulation)
        market.order(900_001)
        market.at(now + timedelta(days=15)).done("npb.file", order_id=900_001, member_id="seller")
    fields = """
        SELECT type, part.key, array_agg(field ORDER BY field) FROM unwind.events
        CROSS JOIN jsonb_each(changes) AS part CROSS JOIN jsonb_object_keys(part.value) AS field
        WHERE order_id = %s AND type IN ('orders.submitted', 'npb.filed') GROUP BY type, part.key ORDER BY 1, 2
    """
    assert conn.execute(fields, [1]).fetchall() == conn.execute(fields, [900_001]).fetchall()
