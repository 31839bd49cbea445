"""Tests of locks: other logins cannot hold the application's locks, and postings, bills and named locks wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from models import ledger
from models.db import locks
from models.db.database import Database, connect
from models.ddl import grants
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

CHECKOUT = Path(__file__).resolve().parents[3]
SOURCES = [path for floor in ("models", "tasks", "schedules", "workers") for path in (CHECKOUT / floor).rglob("*.py")]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's own database as the application sees it, with room for two at once."""
    opened = connect(database_url, pool_size=2)
    yield opened
    opened.dispose()


def test_the_application_takes_no_advisory_lock() -> None:
    """Every login may take any of them, and hold it for as long as it likes."""
    assert [path.name for path in SOURCES if re.search(r"pg_(try_)?advisory", path.read_text())] == []


def test_advisory_locks_of_somebody_else_stop_no_order(market: Market, database_url: str) -> None:
    order = market.order()
    market.at(FILED).done("npb.file", order_id=order, member_id="seller")
    with psycopg.connect(libpq_url(database_url), autocommit=True) as attacker:
        attacker.execute(f"SET ROLE {grants.SUBMIT_ROLE}")
        attacker.execute("SELECT pg_advisory_lock(f, 0) FROM generate_series(7300, 7310) AS f")
        attacker.execute("SELECT pg_advisory_lock(7302, hashtext('seller')), pg_advisory_lock(7243001)")
        assert market.at(FILED + WEEK).done("orders.cancel", order_id=order, member_id="seller")["basis"] == "NPB"
        locked = attacker.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert locked.fetchone() == (0,)


@pytest.mark.parametrize("role", [grants.SUBMIT_ROLE, grants.READER_ROLE])
@pytest.mark.parametrize("table", grants.LOCK_TABLES)
@pytest.mark.parametrize("statement", ["LOCK TABLE {} IN ACCESS SHARE MODE", "SELECT FROM {} FOR SHARE"])
def test_nobody_else_reaches_the_rows_that_it_locks(database_url: str, role: str, table: str, statement: str) -> None:
    """Rows have rights; numbers have none."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as attacker:
        attacker.execute(f"SET ROLE {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), attacker.transaction():
            attacker.execute(statement.format(f"unwind.{table}"))


def test_postings_share_a_sellers_ledger_and_a_bill_waits_for_them(database: Database) -> None:
    """Rows that were not there before included."""
    with database.transaction() as first:
        ledger.lock_open_months(first, ["s"])
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_open_months(first, ["s"])
        ledger.lock_open_months(second, ["s"])
        assert _waits(second, "SELECT FROM unwind.ledger_locks WHERE seller_id = 's' FOR UPDATE NOWAIT")


def test_closing_a_month_waits_for_every_posting(database: Database) -> None:
    """Whoever it is for."""
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_open_months(first, ["s"])
        assert _waits(second, "LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE NOWAIT")
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_all_months(first)
        assert _waits(second, "LOCK TABLE unwind.ledger_locks IN ROW SHARE MODE NOWAIT")


def test_a_matter_for_one_is_tried_or_waited_for(database: Database) -> None:
    """Whole: another matter is nobody's business."""
    with database.transaction() as first, database.transaction() as second:
        locks.lock_named(first, "terms")
        assert locks.try_lock_named(second, "audit")
    with database.transaction() as first, database.transaction() as second:
        assert locks.try_lock_named(first, "audit")
        assert not locks.try_lock_named(second, "audit")


def _waits(conn: Connection, statement: str) -> bool:
    with conn.begin_nested() as step:
        try:
            conn.execute(text(statement))
        except DBAPIError as error:
            step.rollback()
            return "could not obtain lock" in str(error.orig)
    return False
