"""Tests of `migrate --wait` on a PostgreSQL that starts late, and of what it does not wait for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import text

from models.db import database as db
from models.orders import OrderRow
from tests.plugins.postgres import PASSWORD, PostgresServer, new_server
from tests.plugins.stored_rows import DatabaseRows
from workers.monitoring.doctor import database as doctor
from workers.monitoring.doctor.context import Context
from workers.settings import CHECKOUT, load_settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


def start_migrate(url: str, seconds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workers", "migrate", "--wait", str(seconds)],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "DATABASE_URL": url,
            "CELERY_BROKER_URL": "redis://127.0.0.1:1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that was not started yet and will be a standby, which refuses connections until it is promoted."""
    with new_server() as server:
        server.create()
        (server.data / "standby.signal").touch()
        yield server


def test_migrate_waits_for_a_server_that_does_not_run_or_is_starting_up(server: PostgresServer) -> None:
    migration = start_migrate(server.url(), 60)
    assert migration.stderr is not None
    line = migration.stderr.readline()
    assert line.startswith("Waiting up to 60 s for PostgreSQL: ")
    assert "refused" in line
    server.start(awaited=False, hot_standby="off")
    while "the database system is" not in (line := migration.stderr.readline()):
        assert line.startswith("Waiting up to"), line
    assert PASSWORD not in line
    server.promote_without_connecting()
    output, errors = migration.communicate(timeout=60)
    assert (migration.returncode, output) == (0, "The schema is up to date.\n"), errors
    assert DatabaseRows(server.url()).count(OrderRow) == 0


@pytest.mark.parametrize(
    ("wrong", "reason", "fix"),
    [
        ("password", "password authentication failed", "correct the user and the password in DATABASE_URL"),
        ("database", 'database "elsewhere" does not exist', "CREATE DATABASE elsewhere OWNER chief"),
    ],
)
def test_a_wrong_password_or_database_fails_at_once_with_the_fix(
    other_server: PostgresServer, wrong: str, reason: str, fix: str
) -> None:
    url = other_server.url("elsewhere" if wrong == "database" else "postgres")
    if wrong == "password":
        url = url.replace(quote(PASSWORD, safe=""), "mistyped")
    started_at = time.monotonic()
    migration = start_migrate(url, 600)
    _, errors = migration.communicate(timeout=60)
    assert migration.returncode == 1
    assert time.monotonic() - started_at < 30
    assert "Waiting" not in errors
    assert errors.startswith("Error: PostgreSQL refuses the login: ")
    assert reason in errors
    assert fix in errors.partition(" Fix: ")[2]
    assert "mistyped" not in errors


def test_a_host_name_that_does_not_resolve_is_waited_for_until_the_time_is_over() -> None:
    migration = start_migrate("postgresql://u:secret-word@nowhere.invalid/unwind", 1)
    _, errors = migration.communicate(timeout=60)
    assert migration.returncode == 1
    assert errors.startswith("Waiting up to 1 s for PostgreSQL: ")
    assert "The database does not answer (DATABASE_URL)" in errors
    assert "Traceback" not in errors
    assert "secret-word" not in errors


def test_the_login_and_the_database_of_the_page_suffice() -> None:
    page = (CHECKOUT / "docs" / "operate.md").read_text()
    statements = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0].splitlines()
    with new_server() as fresh:
        fresh.create()
        fresh.start()
        with fresh.connect() as administrator:
            for statement in statements:
                administrator.execute(statement)
        url = f"postgresql://unwind_owner:change-me@127.0.0.1:{fresh.port}/unwind"
        migration = start_migrate(url, 5)
        _, errors = migration.communicate(timeout=60)
        assert migration.returncode == 0, errors
        database = db.connect(url)
        context = Context(load_settings(database_url=url), database=database)
        with context.transaction():
            assert context.conn.execute(text("SELECT current_user")).scalar() == "unwind_app"
            for check in (doctor.check_database_rights, doctor.check_definers, doctor.check_database_schema):
                assert [*check(context)] == []
        database.dispose()
