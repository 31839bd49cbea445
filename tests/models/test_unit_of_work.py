"""Tests of the unit of work: conflicts, deadlocks, lock timeouts and commits of unknown outcome."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from models.db import database as db
from models.unit_of_work import CONFLICT_SQLSTATES, MAX_CONFLICT_RETRIES, retry_on_conflict
from tests.plugins.market import FILED, Market
from tests.plugins.proxy import Cut, Proxy
from tests.plugins.servers import libpq_url
from workers.app import app
from workers.errors import is_database_unavailable
from workers.simulation.engine import Simulation
from workers.task import execute


@pytest.mark.guarantee("P2")
@pytest.mark.parametrize("answered", [True, False], ids=["it was durable", "it never arrived"])
def test_a_commit_of_unknown_outcome_is_settled_by_its_request_row(
    market: Market, database_url: str, answered: bool
) -> None:
    """The wire is cut before or after the server has committed; the same command again finds out which it was."""
    market.order()
    market.at(FILED)
    told = {"order_id": 1003, "member_id": "seller", "request_id": "r-1"}
    with Proxy(urlsplit(libpq_url(database_url)).port or 0) as proxy:
        wired = db.connect(proxy.url(database_url), clock=market.simulation.clock)
        db.set_database(wired)
        try:
            with wired.transaction() as conn:  # a new connection commits once by itself, to enter its role
                conn.execute(text("SELECT 1"))
            cut = proxy.cut(Cut(after_asking=b"COMMIT") if answered else Cut(asked=b"COMMIT"))
            with pytest.raises(DBAPIError) as doubt:
                execute(app.tasks["npb.file"], told, "m-1")
            assert cut.happened.is_set()
            assert is_database_unavailable(doubt.value), "so the job tries again, without counting"
            answer = execute(app.tasks["npb.file"], told, "m-1")
        finally:
            db.set_database(market.simulation.database)
            wired.dispose()
    assert (answer["outcome"], answer["replayed"]) == ("done", answered)
    assert market.row("SELECT count(*) FROM unwind.alerts").count == 1
    assert market.row("SELECT count(*) FROM unwind.events WHERE type = 'npb.filed'").count == 1


@pytest.mark.parametrize("state", CONFLICT_SQLSTATES)
def test_a_unit_of_work_that_clashes_runs_again_as_a_whole_a_few_times(simulation: Simulation, state: str) -> None:
    """Nothing of it was written; what goes on clashing is in the end somebody else's to try again."""
    tries = []

    def clashing(until: int) -> int:
        with simulation.database.transaction() as conn:
            tries.append(conn.execute(text("SELECT pg_current_xact_id()::text")).scalar())
            if len(tries) < until:
                conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'clash' USING ERRCODE = '{state}'; END $$"))
        return len(tries)

    assert retry_on_conflict(lambda: clashing(3)) == 3
    assert len(set(tries)) == 3, "each time a transaction of its own"
    tries.clear()
    with pytest.raises(DBAPIError):
        retry_on_conflict(lambda: clashing(100))
    assert len(tries) == MAX_CONFLICT_RETRIES


def test_two_that_deadlock_both_come_through(simulation: Simulation, database_url: str) -> None:
    """PostgreSQL ends one of them, and that one runs again."""
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
    for one in pair:
        one.start()
    for one in pair:
        one.join(30)
    assert not any(one.is_alive() for one in pair)
    assert len(tries) == 3


def test_nobody_waits_long_behind_a_lock_nor_keeps_one_idle(simulation: Simulation) -> None:
    """Bounded by the server, for every connection, and well below a job's hard limit together."""
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


def test_a_command_behind_a_lock_that_is_held_for_ever_fails_in_time_and_succeeds_afterwards(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: it gives up its turn, and the job comes round again."""
    market.order()
    market.at(FILED)
    monkeypatch.setattr(db, "LOCK_TIMEOUT_MS", 50)
    impatient = db.connect(database_url, clock=market.simulation.clock)
    told: dict[str, Any] = {"order_id": 1003, "member_id": "seller", "request_id": "r-1"}
    db.set_database(impatient)
    try:
        with psycopg.connect(libpq_url(database_url)) as holder:
            holder.execute("SELECT FROM unwind.orders FOR UPDATE")
            with pytest.raises(OperationalError, match="lock timeout"):
                execute(app.tasks["npb.file"], told, "m-1")
            holder.rollback()
        assert execute(app.tasks["npb.file"], told, "m-1")["outcome"] == "done"
    finally:
        db.set_database(market.simulation.database)
        impatient.dispose()
