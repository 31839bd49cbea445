"""Tests of backup and restore into an empty database with an empty Redis."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, func, inspect, select, table, text

from models import feed
from models.db import database as db
from models.db.postgres_address import PostgresAddress
from models.integrity import invariants
from models.migrations import upgrade
from schedules.routes import queue_of
from tests.plugins.market import Market
from tests.plugins.postgres import USER, PostgresServer, programs
from tests.plugins.servers import fresh_database, libpq_url
from tests.plugins.upstream import Installation, submit_orders, temporary_installation
from tests.waiting import wait_until
from workers.cli import backup, group
from workers.embedded.client import ServerUrls
from workers.local.process_specs import worker_program
from workers.simulation.engine import Simulation

pytestmark = pytest.mark.e2e


def typed(monkeypatch: pytest.MonkeyPatch, url: str, *words: str) -> Result:
    monkeypatch.setenv("DATABASE_URL", url)
    return CliRunner().invoke(group, words)


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2004), buyer_id="stranger")


def counts(url: str) -> dict[str, int]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as conn:
        names = inspect(conn).get_table_names(schema="unwind")
        counted = {name: select(func.count()).select_from(table(name, schema="unwind")) for name in names}
        return {name: conn.execute(query).scalar_one() for name, query in counted.items()}


@pytest.mark.long
def test_restored_installation_finishes_its_outbox(
    servers: ServerUrls,
    admin: psycopg.Connection,
    template_database: str,
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "unwind.dump"
    with temporary_installation(servers, admin, template_database, tmp_path / "old", seed) as old:
        before = _cancel_without_consumers(old)
        assert typed(monkeypatch, old.database_url, "backup", str(file)).exit_code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        original_counts = counts(old.database_url)
    result = typed(monkeypatch, empty_database_url, "restore", str(file))
    assert result.exit_code == 0, result.output
    assert "All invariants hold." in result.output
    assert counts(empty_database_url) == original_counts
    with temporary_installation(servers, admin, template_database, tmp_path / "new", lambda _market: None) as new:
        new.database_url = empty_database_url
        new.settings = new.settings.model_copy(update={"database_url": SecretStr(empty_database_url)})
        new.supervisor.start(worker_program(new.settings, "sweeps"))
        new.start_worker()
        with new.client() as ask:
            ask.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True)  # as beat does
            wait_until(lambda: new.outbox(key="fee:2001", state="done"))
            again = ask.send_task(
                "orders.cancel",
                kwargs={"order_id": 2001, "member_id": "seller", "request_id": "before-the-backup"},
                queue="commands",
            ).get(timeout=30)
        assert again == before | {"replayed": True}
        database = db.connect(empty_database_url)
        with database.transaction() as conn:
            assert invariants.query_invariants(conn, database.clock.now(conn), in_time=False) == {}
        database.dispose()


def _cancel_without_consumers(old: Installation) -> dict[str, Any]:
    with Simulation(old.database_url, at=old.server_time()) as simulation:
        filed = {"reason": "S_MUTUAL", "comment": "agreed by mail", "request_id": "asked-before"}
        simulation.do("ocr.file", order_id=2001, member_id="seller", **filed)
        answer = simulation.do("orders.cancel", order_id=2001, member_id="seller", request_id="before-the-backup")
    assert answer["outcome"] == "done", answer
    return answer


def test_restore_never_overwrites(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unwind.dump"
    assert typed(monkeypatch, database_url, "backup", str(file)).exit_code == 0
    refused = typed(monkeypatch, database_url, "restore", str(file))
    assert refused.exit_code == 1
    assert "empty database" in refused.output
    refused = typed(monkeypatch, database_url, "backup", str(file))
    assert (refused.exit_code, "--replace" in refused.output) == (1, True)
    assert typed(monkeypatch, database_url, "backup", str(file), "--replace").exit_code == 0


def test_broken_backup_restores_nothing(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.dump"
    broken.write_bytes(b"PGDMP and then nothing of use")
    result = typed(monkeypatch, empty_database_url, "restore", str(broken))
    assert result.exit_code == 1
    assert "pg_restore failed" in result.output
    engine = create_engine(empty_database_url)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT to_regclass('unwind.orders')")).scalar() is None
    engine.dispose()


def test_no_password_is_on_a_command_line(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    real = subprocess.run

    def watched(command: Any, **options: Any) -> Any:
        ran.append([str(word) for word in command])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    assert typed(monkeypatch, database_url, "backup", str(tmp_path / "x.dump")).exit_code == 0
    password = database_url.split(":")[2].partition("@")[0]
    assert any("pg_dump" in command[0] for command in ran)
    assert password
    assert not any(password in word for command in ran for word in command)


def marked_database(server: PostgresServer, name: str) -> None:
    with server.connect() as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    upgrade(server.url(name))
    with server.connect(name) as conn:
        conn.execute("CREATE TABLE unwind.mark AS SELECT 1 AS x")


def point_elsewhere(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    away = PostgresAddress.parse(url)
    for name, value in {
        "PGHOST": away.hosts[0][0],
        "PGPORT": str(away.hosts[0][1]),
        "PGUSER": away.user or "",
        "PGPASSWORD": away.password or "",
        "PGDATABASE": away.database,
        "PGSSLMODE": "disable",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("spelling", ["socket_url", "url"])
def test_backup_and_restore_use_only_the_url_and_no_libpq_variables(
    other_server: PostgresServer,
    database_url: str,
    empty_database_url: str,
    spelling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked_database(other_server, "marked")
    url = getattr(other_server, spelling)
    file = tmp_path / "unwind.dump"
    point_elsewhere(monkeypatch, database_url)
    result = typed(monkeypatch, url("marked"), "backup", str(file))
    assert result.exit_code == 0, result.output
    listed = subprocess.run([programs() / "pg_restore", "--list", file], capture_output=True, text=True, check=True)
    assert " TABLE unwind mark " in listed.stdout
    with other_server.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS brought WITH (FORCE)")
        conn.execute("CREATE DATABASE brought TEMPLATE template0")
    point_elsewhere(monkeypatch, empty_database_url)
    result = typed(monkeypatch, url("brought"), "restore", str(file))
    assert result.exit_code == 0, result.output
    with other_server.connect("brought") as conn:
        assert conn.execute("SELECT x FROM unwind.mark").fetchone() == (1,)
    with psycopg.connect(libpq_url(empty_database_url)) as conn:
        assert conn.execute("SELECT to_regnamespace('unwind')").fetchone() == (None,)


def test_tools_that_reach_another_server_write_nothing(
    other_server: PostgresServer,
    empty_database_url: str,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "wrappers"
    folder.mkdir()
    real = programs()
    away = f"--dbname=host={other_server.socket} port={other_server.port} user={USER} dbname=postgres"
    for name in ("psql", "pg_dump", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\nshift\nexec {real / name} '{away}' \"$@\"\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(backup, "_find_backup_clients", lambda *_: folder)
    file = tmp_path / "unwind.dump"
    result = typed(monkeypatch, database_url, "backup", str(file))
    assert (result.exit_code, file.exists()) == (1, False)
    assert "reach another database than DATABASE_URL names" in result.output
    file.write_bytes(b"PGDMP")
    result = typed(monkeypatch, empty_database_url, "restore", str(file))
    assert result.exit_code == 1
    assert "reach another database than DATABASE_URL names" in result.output


def test_backup_works_without_the_right_to_read_the_system_identifier(
    other_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked_database(other_server, "hosted")
    with other_server.connect("hosted") as conn:
        conn.execute("CREATE ROLE tenant LOGIN PASSWORD 'x'")
        conn.execute("GRANT pg_read_all_data TO tenant")
        conn.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    url = f"postgresql://tenant:x@127.0.0.1:{other_server.port}/hosted"
    result = typed(monkeypatch, url, "backup", str(tmp_path / "x.dump"))
    assert result.exit_code == 0, result.output


def test_every_tool_uses_the_tls_options_of_the_url(
    other_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = typed(monkeypatch, other_server.url() + "?sslmode=require", "backup", str(tmp_path / "x.dump"))
    assert (result.exit_code, "SSL" in result.output) == (1, True)
    address = PostgresAddress.parse(other_server.url() + "?sslmode=require")
    with pytest.raises(click.ClickException, match="does not support SSL"):
        backup.run_backup_client(programs(), address, "psql", "--command=SELECT 1")


def test_feed_continues_on_a_server_with_lower_transaction_ids(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, market: Market
) -> None:
    market.order(1003)
    with fresh_database(servers, admin, template_database) as url:
        engine = create_engine(url)
        with engine.begin() as conn:  # like rows of a server that is a million transactions ahead
            conn.execute(
                text(
                    "INSERT INTO unwind.events (at, type, actor, role, note, changes, member_id, written_in) VALUES "
                    "('2026-03-01Z', 'members.terminated', 'pat', 'staff', '', '{}', 'm', "
                    "1000000 + (pg_current_xact_id()::text)::bigint)"
                )
            )
        with engine.begin() as conn:
            assert feed.events_after(conn, None, 10) == []  # hidden: its transaction id seems to be in the future
            assert 0 < feed.feed_transaction_id_gap(conn) <= 1_000_000
            assert feed.advance_feed_base(conn) > 0
        with engine.begin() as conn:
            assert feed.advance_feed_base(conn) == 0
            ((cursor, first),) = wait_until(lambda: feed.events_after(conn, None, 10))
            assert first["type"] == "members.terminated"
        with engine.begin() as conn:
            conn.execute(
                text(
                    "INSERT INTO unwind.events (at, type, actor, role, note, changes, member_id) VALUES "
                    "('2026-03-02Z', 'members.reinstated', 'pat', 'staff', '', '{}', 'm')"
                )
            )
        with engine.begin() as conn:
            ((_, second),) = wait_until(lambda: feed.events_after(conn, cursor, 10))
            assert second["type"] == "members.reinstated"
        engine.dispose()
