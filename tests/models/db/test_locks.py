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
from models.db import named_locks
from models.db.database import Database, connect
from models.ddl import grants
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

CHECKOUT = Path(__file__).resolve().parents[3]
LAYERS = ("models", "tasks", "schedules", "workers", "web")
SOURCES = [path for layer in LAYERS for path in (CHECKOUT / layer).rglob("*.py")]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The test's database as the application connects to it, with two connections."""
    opened = connect(database_url, pool_size=2)
    yield opened
    opened.dispose()


def test_application_uses_no_advisory_locks() -> None:
    """Any login may take an advisory lock and hold it."""
    assert [path.name for path in SOURCES if re.search(r"pg_(try_)?advisory", path.read_text())] == []


def test_advisory_locks_of_another_login_block_no_command(market: Market, database_url: str) -> None:
    """The attack: a submitter takes every advisory lock that the application could use."""
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
@pytest.mark.parametrize("table", grants.PRIVATE_LOCK_TABLES)
@pytest.mark.parametrize("statement", ["LOCK TABLE {} IN ACCESS SHARE MODE", "SELECT FROM {} FOR SHARE"])
def test_other_roles_cannot_lock_the_lock_tables(database_url: str, role: str, table: str, statement: str) -> None:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as attacker:
        attacker.execute(f"SET ROLE {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), attacker.transaction():
            attacker.execute(statement.format(f"unwind.{table}"))


def test_postings_share_a_sellers_lock_and_billing_waits_for_them(database: Database) -> None:
    with database.transaction() as first:
        ledger.lock_open_ledger_months(first, ["s"])
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_open_ledger_months(first, ["s"])
        ledger.lock_open_ledger_months(second, ["s"])
        assert _waits(second, "SELECT FROM unwind.ledger_locks WHERE seller_id = 's' FOR UPDATE NOWAIT")


def test_closing_a_month_waits_for_postings_of_all_sellers(database: Database) -> None:
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_open_ledger_months(first, ["s"])
        assert _waits(second, "LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE NOWAIT")
    with database.transaction() as first, database.transaction() as second:
        ledger.lock_all_ledgers(first)
        assert _waits(second, "LOCK TABLE unwind.ledger_locks IN ROW SHARE MODE NOWAIT")


def test_named_locks_are_independent_of_each_other(database: Database) -> None:
    with database.transaction() as first, database.transaction() as second:
        named_locks.lock_named(first, "terms")
        assert named_locks.try_lock_named(second, "audit")
    with database.transaction() as first, database.transaction() as second:
        assert named_locks.try_lock_named(first, "audit")
        assert not named_locks.try_lock_named(second, "audit")


def _waits(conn: Connection, statement: str) -> bool:
    with conn.begin_nested() as step:
        try:
            conn.execute(text(statement))
        except DBAPIError as error:
            step.rollback()
            return "could not obtain lock" in str(error.orig)
    return False
