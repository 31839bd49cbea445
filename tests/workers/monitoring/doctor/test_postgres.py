"""Tests of the findings about an external PostgreSQL, on a real server and behind a real pooler where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.migrations import upgrade
from tests.plugins.postgres import USER, PostgresServer, new_server
from tests.workers.monitoring.doctor.findings import codes
from workers.cli import group
from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.monitoring.doctor import Finding, examine

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@pytest.fixture
def server(other_server: PostgresServer) -> Iterator[PostgresServer]:
    """With an empty database `patient`."""
    with other_server.connect() as conn:
        conn.execute("CREATE DATABASE patient TEMPLATE template0")
    yield other_server
    with other_server.connect() as conn:
        conn.execute("DROP DATABASE patient WITH (FORCE)")


@pytest.fixture(autouse=True)
def broker(broker_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", broker_url)
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))


def found_at(url: str, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setenv("DATABASE_URL", url)
    return examine()


def test_another_encoding_is_named_by_doctor_and_refused_by_migrate(
    other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_server.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS latin")
        conn.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    found = found_at(other_server.url("latin"), monkeypatch)
    assert "DATABASE_ENCODING" in codes(found)
    assert "ENCODING 'UTF8'" in next(one.fix for one in found if one.code == "DATABASE_ENCODING")
    said = CliRunner().invoke(group, ["migrate"])
    assert said.exit_code == 1
    assert "LATIN1" in said.output
    assert "ENCODING 'UTF8'" in said.output


def test_variables_of_libpq_that_nobody_reads_are_named(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    found = found_at(server.url("patient"), monkeypatch)
    assert "PG_VARIABLES_UNREAD" in codes(found)
    assert "DATABASE_UNREACHABLE" not in codes(found)


def test_commits_that_may_be_lost_are_named(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DATABASE_NOT_DURABLE" not in codes(found_at(server.url("patient"), monkeypatch))
    with server.connect() as conn:
        conn.execute("ALTER DATABASE patient SET synchronous_commit = off")
    assert "DATABASE_NOT_DURABLE" in codes(found_at(server.url("patient"), monkeypatch))


def test_a_standby_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        second.follow(first)
        second.start()
        assert "DATABASE_IS_STANDBY" in codes(found_at(second.url(), monkeypatch))
        assert "DATABASE_IS_STANDBY" not in codes(found_at(first.url(), monkeypatch))


def test_no_password_is_shown_of_an_address_with_several_hosts(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://{USER}:hunter2@127.0.0.1:1,127.0.0.1:{server.port}/patient"
    found = found_at(url, monkeypatch)
    assert "DATABASE_UNREACHABLE" in codes(found)
    assert not any("hunter2" in one.as_line() for one in found)


if PGBOUNCER:

    @pytest.mark.parametrize(("mode", "code"), [("transaction", "POOLER_BY_TRANSACTION"), ("session", "POOLER")])
    def test_a_pooler_is_named_with_what_it_pools(
        mode: str, code: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        upgrade(server.url("patient"))
        port = free_port()
        (tmp_path / "users").write_text(f'"{USER}" ""\n')
        (tmp_path / "ini").write_text(
            f"[databases]\npatient = host={server.socket} port={server.port} user={USER}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"auth_file = {tmp_path}/users\npool_mode = {mode}\nlogfile = {tmp_path}/pooler.log\n"
        )
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
        assert PGBOUNCER is not None
        pooler = subprocess.Popen(
            [PGBOUNCER, "-q", str(tmp_path / "ini")],
            stderr=subprocess.DEVNULL,
            preexec_fn=server.identity.becoming(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - it refuses to be root
        )
        try:
            url = f"postgresql://{USER}@127.0.0.1:{port}/patient"
            assert wait_until(lambda: "DATABASE_UNREACHABLE" not in codes(found_at(url, monkeypatch)), 20)
            assert code in codes(found_at(url, monkeypatch))
            assert not [one for one in codes(found_at(server.url("patient"), monkeypatch)) if one.startswith("POOLER")]
        finally:
            pooler.terminate()
            pooler.wait(10)
