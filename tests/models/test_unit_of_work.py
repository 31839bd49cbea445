"""Tests of the unit of work: conflicts, deadlocks, lock timeouts and commits of unknown outcome."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from models.alerts import AlertRow
from models.db import database as db
from models.db import session_settings
from models.db.conflicts import CONFLICT_SQLSTATES, MAX_CONFLICT_RETRIES, retry_on_conflict
from models.db.database import is_database_unavailable
from models.events import EventRow
from tests.plugins.market import FILED, Market
from tests.plugins.proxy import Cut, Proxy
from tests.plugins.servers import libpq_url
from workers.app import app
from workers.simulation.engine import Simulation


@pytest.mark.guarantee("P2")
@pytest.mark.parametrize("answered", [True, False], ids=["it was durable", "it never arrived"])
def test_commit_of_unknown_outcome_is_settled_by_the_request_row(
    market: Market, database_url: str, answered: bool
) -> None:
    """The connection is cut before or after the commit; the repeated command finds out which."""
    market.order()
    market.at(FILED)
    arguments = {"order_id": 1003, "member_id": "seller", "request_id": "r-1"}
    with Proxy(urlsplit(libpq_url(database_url)).port or 0) as proxy:
        wired = db.connect(proxy.url(database_url), clock=market.simulation.clock)
        db.set_database(wired)
        try:
            with wired.transaction() as conn:  # a new connection commits once by itself, to enter its role
                conn.execute(text("SELECT 1"))
            cut = proxy.cut(Cut(after_asking=b"COMMIT") if answered else Cut(requested=b"COMMIT"))
            with pytest.raises(DBAPIError) as doubt:
                app.tasks["npb.file"].validate_and_run(arguments, "m-1")
            assert cut.happened.is_set()
            assert is_database_unavailable(doubt.value), "so the job tries again, without counting"
            answer = app.tasks["npb.file"].validate_and_run(arguments, "m-1")
        finally:
            db.set_database(market.simulation.database)
            wired.dispose()
    assert (answer["outcome"], answer["replayed"]) == ("done", answered)
    assert market.count(AlertRow) == 1
    assert market.count(EventRow, type="npb.filed") == 1


@pytest.mark.parametrize("state", CONFLICT_SQLSTATES)
def test_conflicting_unit_of_work_runs_again_a_few_times(simulation: Simulation, state: str) -> None:
    tries = []

    def conflicting(until: int) -> int:
        with simulation.database.transaction() as conn:
            tries.append(conn.execute(text("SELECT pg_current_xact_id()::text")).scalar())
            if len(tries) < until:
                conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'clash' USING ERRCODE = '{state}'; END $$"))
        return len(tries)

    assert retry_on_conflict(lambda: conflicting(3)) == 3
    assert len(set(tries)) == 3, "each time a transaction of its own"
    tries.clear()
    with pytest.raises(DBAPIError):
        retry_on_conflict(lambda: conflicting(100))
    assert len(tries) == MAX_CONFLICT_RETRIES


def test_deadlocked_units_of_work_both_succeed(simulation: Simulation, database_url: str) -> None:
    """PostgreSQL aborts one of them, which runs again."""
    with simulation.database.transaction() as conn:
        for name in ("a", "b"):
            conn.execute(text("INSERT INTO unwind.broker_epochs VALUES (:name, clock_timestamp())"), {"name": name})
    both_have_one = threading.Barrier(2)
    tries: list[str] = []

    def lock(first: str, second: str) -> None:
        database = db.connect(database_url)
        query = text("SELECT FROM unwind.broker_epochs WHERE epoch = :name FOR UPDATE")

        def body() -> None:
            with database.transaction() as conn:
                conn.execute(query, {"name": first})
                tries.append(first)
                if tries.count(first) == 1:
                    both_have_one.wait(20)
                conn.execute(query, {"name": second})

        retry_on_conflict(body)
        database.dispose()

    pair = [threading.Thread(target=lock, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join(30)
    assert not any(thread.is_alive() for thread in pair)
    assert len(tries) == 3


def test_lock_waits_and_idle_transactions_are_bounded(simulation: Simulation) -> None:
    """All waits together stay well below a job's hard limit."""
    with simulation.database.transaction() as conn:
        shown = {
            name: conn.execute(text(f"SHOW {name}")).scalar()
            for name in (
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "transaction_timeout",
                "timezone",
            )
        }
    assert shown == {
        "transaction_timeout": "45s",
        "lock_timeout": "3s",
        "statement_timeout": "15s",
        "idle_in_transaction_session_timeout": "30s",
        "timezone": "UTC",
    }


def test_command_fails_behind_a_held_lock_and_succeeds_after_its_release(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the command fails after the lock timeout and is retried."""
    market.order()
    market.at(FILED)
    monkeypatch.setattr(session_settings, "LOCK_TIMEOUT_MS", 50)
    short_timeouts = db.connect(database_url, clock=market.simulation.clock)
    arguments: dict[str, Any] = {"order_id": 1003, "member_id": "seller", "request_id": "r-1"}
    db.set_database(short_timeouts)
    try:
        with psycopg.connect(libpq_url(database_url)) as holder:
            holder.execute("SELECT FROM unwind.orders FOR UPDATE")
            with pytest.raises(OperationalError, match="lock timeout"):
                app.tasks["npb.file"].validate_and_run(arguments, "m-1")
            holder.rollback()
        assert app.tasks["npb.file"].validate_and_run(arguments, "m-1")["outcome"] == "done"
    finally:
        db.set_database(market.simulation.database)
        short_timeouts.dispose()
