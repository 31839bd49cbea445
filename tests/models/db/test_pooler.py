"""Tests behind PgBouncer in transaction mode, where each transaction may have another server process."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from models.db import database as db
from models.db import session_settings
from models.db.pipeline import execute, pipeline
from models.migrations import upgrade
from models.orders import OrderRow
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from tests.plugins.pooler import pooler
from tests.plugins.servers import libpq_url
from tests.plugins.stored_rows import DatabaseRows
from workers.cli.backup import write_backup
from workers.embedded.client import ServerUrls
from workers.simulation.engine import Simulation

pytestmark = pytest.mark.long

FOREIGN = """
    SELECT current_user, current_setting('statement_timeout'), current_setting('search_path'),
        (SELECT count(*) FROM pg_prepared_statements), pg_backend_pid()
"""


@pytest.fixture(scope="module")
def pooler_url(servers: ServerUrls) -> Iterator[str]:
    """The suite's PostgreSQL server behind a pooler in transaction mode."""
    with pooler(servers.database_url) as url:
        yield url


@pytest.fixture
def pooled_url(pooler_url: str, database_url: str) -> str:
    """The database of the test behind the pooler."""
    return f"{pooler_url.rpartition('/')[0]}/{database_url.rpartition('/')[2]}"


@pytest.fixture
def pooled(pooled_url: str) -> Iterator[db.Database]:
    database = db.connect(pooled_url)
    yield database
    database.dispose()


@contextlib.contextmanager
def foreign(url: str) -> Iterator[psycopg.Connection]:
    """Another program behind the pooler, which sets nothing."""
    with psycopg.connect(libpq_url(url), autocommit=True, prepare_threshold=None) as conn:
        yield conn


def assert_settings_in_force(conn: Connection, **changed: str) -> None:
    expected = session_settings.session_settings(150_000, as_app=True) | changed
    for name, value in expected.items():
        current = conn.execute(text(f"SELECT current_setting('{name}')")).scalar()
        assert (name, current) == (name, conn.execute(text(f"SELECT set_config('{name}', '{value}', true)")).scalar())
    assert conn.execute(text("SELECT current_user, current_setting('transaction_isolation')")).one() == (
        db.APP_ROLE,
        "read committed",
    )


def test_settings_and_role_are_in_force_in_each_transaction(pooled: db.Database) -> None:
    for by_keys in (False, True, False):
        plans = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"} if by_keys else {}
        with pooled.transaction(by_keys=by_keys) as conn:
            assert_settings_in_force(conn, **plans)
        with pooled.transaction(by_keys=by_keys) as conn, pipeline(conn):
            role = execute(conn, text("SELECT current_user, current_setting('plan_cache_mode') AS plans"), {})
            assert role.fetchall() == [(db.APP_ROLE, plans.get("plan_cache_mode", "auto"))]
    with pooled.transaction() as conn:
        db.use_snapshot_isolation(conn)
        assert conn.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"


def test_options_that_the_pooler_ignores_are_not_needed(pooled_url: str) -> None:
    database = db.connect(f"{pooled_url}?options=-c%20statement_timeout%3D1")
    with database.transaction() as conn:
        assert_settings_in_force(conn)
    database.dispose()


def test_what_another_program_sets_in_the_server_process_does_not_matter(pooled: db.Database, pooled_url: str) -> None:
    with foreign(pooled_url) as conn:
        conn.execute("SET SESSION ROLE unwind_reader")
        for name, value in (
            ("statement_timeout", "'0'"),
            ("search_path", "unwind, public"),
            ("default_transaction_isolation", "'serializable'"),
            ("default_transaction_read_only", "on"),
            ("transform_null_equals", "on"),
        ):
            conn.execute(f"SET SESSION {name} = {value}")
        (backend,) = conn.execute("SELECT pg_backend_pid()").fetchone()  # type: ignore[misc]
    with pooled.transaction() as conn:
        assert conn.execute(text("SELECT pg_backend_pid()")).scalar() == backend
        assert_settings_in_force(conn)
        assert conn.execute(text("SHOW transaction_read_only")).scalar() == "off"


def test_nothing_of_ours_is_left_for_another_program(pooled: db.Database, pooled_url: str) -> None:
    with foreign(pooled_url) as conn:
        before = conn.execute(FOREIGN).fetchone()
        assert before is not None
        assert before[0] != db.APP_ROLE
        for by_keys in (False, True):
            with pooled.transaction(by_keys=by_keys) as ours:
                execute(ours, text("SELECT 1 AS one"), {}).fetchall()
            assert conn.execute(FOREIGN).fetchone() == before
        with pytest.raises(DBAPIError), pooled.transaction() as ours:
            execute(ours, text("SELECT 1 / 0 AS nothing"), {})
        assert conn.execute(FOREIGN).fetchone() == before


def test_timeouts_end_statements_and_waits(pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_settings, "SESSION_STATEMENT_TIMEOUT_MS", 300)
    monkeypatch.setattr(session_settings, "LOCK_TIMEOUT_MS", 100)
    database = db.connect(pooled_url)
    with pytest.raises(DBAPIError, match="statement timeout"), database.transaction() as conn:
        conn.execute(text("SELECT pg_sleep(60)"))
    with foreign(pooled_url) as holder, holder.transaction():
        holder.execute("LOCK TABLE unwind.orders")
        with pytest.raises(DBAPIError, match="lock timeout"), database.transaction() as conn:
            conn.execute(text("SELECT count(*) FROM unwind.orders"))
    database.dispose()


def test_commands_sweeps_and_the_sql_interface_work(pooled_url: str) -> None:
    with Simulation(pooled_url) as simulation, foreign(pooled_url) as caller:
        simulation.clock.instant = ORDERED
        market = Market(simulation)
        market.order(1003)
        market.order(1004)
        market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
        payload = json.dumps({"order_id": 1004, "member_id": "seller"})
        with caller.transaction():
            caller.execute("SELECT unwind.submit_command('npb.file', %s::jsonb, 'by-sql')", [payload])
            caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
        assert market.done("submissions.drain") == {"taken": 1}
        simulation.advance(FILED + WEEK)
        assert [alert.unlocked_at for alert in market.alerts()] == [FILED + WEEK] * 2


def test_a_command_needs_no_further_round_trip(pooled_url: str, database_url: str, tmp_path: Path) -> None:
    """Each Sync and Query of the protocol ends one."""
    with Simulation(database_url) as simulation:
        simulation.clock.instant = ORDERED
        market = Market(simulation)
        for order_id in (1, 2, 3, 4):
            market.order(order_id)
    assert _round_trips(database_url, [1, 2], tmp_path / "direct") == _round_trips(
        pooled_url, [3, 4], tmp_path / "ours"
    )


def _round_trips(url: str, orders: list[int], file: Path) -> int:
    with Simulation(url, at=FILED) as simulation, file.open("w+b") as trace:
        for order_id in orders:
            with simulation.database.engine.connect() as conn:
                driver: Any = conn.connection.driver_connection
            trace.truncate(0)
            driver.pgconn.trace(trace.fileno())
            answer = simulation.execute("npb.file", {"order_id": order_id, "member_id": "seller"}, f"r-{order_id}")
            assert answer["outcome"] == "done"
            driver.pgconn.untrace()
        messages = [line.split("\t") for line in file.read_text().splitlines()]
    count = sum(parts[1] == "F" and parts[3] in ("Sync", "Query") for parts in messages if len(parts) > 3)
    assert count > 3, messages
    return count


def test_many_processes_share_few_server_processes(pooled_url: str) -> None:
    """Eight clients in the roles of the owner, the application and the HTTP interface take turns at two of them."""
    wrong: list[Any] = []

    def work(role: str, *, as_app: bool) -> None:
        database = db.connect(pooled_url, as_app=as_app, role=role)
        expected = role if as_app else database.engine.url.username or "unwind_owner"
        for number in range(30):
            with database.transaction(by_keys=bool(number % 2)) as conn:
                row = execute(conn, text("SELECT current_user AS role, current_setting('lock_timeout') AS bound"), {})
                if (found := row.fetchall()) != [(expected, "3s")]:
                    wrong.append(found)
        database.dispose()

    roles = [("unwind_app", True), ("unwind_web", True), ("unwind_app", False), ("unwind_web", True)] * 2
    threads = [threading.Thread(target=work, args=[role], kwargs={"as_app": as_app}) for role, as_app in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_what_needs_a_session_of_its_own_is_refused_with_the_fix(pooled_url: str, tmp_path: Path) -> None:
    with pytest.raises(session_settings.PooledSessionRefused) as caught:
        db.open_database_connection(pooled_url, application_name="unwind listen", autocommit=True)
    assert "UNWIND_DIRECT_DATABASE_URL" in caught.value.fix
    with pytest.raises(click.ClickException, match="UNWIND_DIRECT_DATABASE_URL"):
        write_backup(pooled_url, tmp_path / "dump")


def test_a_migration_may_pass_through_the_pooler(pooler_url: str, empty_database_url: str) -> None:
    upgrade(f"{pooler_url.rpartition('/')[0]}/{empty_database_url.rpartition('/')[2]}")
    assert DatabaseRows(empty_database_url).count(OrderRow) == 0
