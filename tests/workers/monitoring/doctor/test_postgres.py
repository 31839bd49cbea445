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

pytestmark = pytest.mark.long

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@pytest.fixture
def server(other_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server with an empty database `patient`."""
    with other_server.connect() as conn:
        conn.execute("CREATE DATABASE patient TEMPLATE template0")
    yield other_server
    with other_server.connect() as conn:
        conn.execute("DROP DATABASE patient WITH (FORCE)")


@pytest.fixture(autouse=True)
def broker(broker_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", broker_url)
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))


def findings_at(url: str, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setenv("DATABASE_URL", url)
    return examine()[0]


def test_another_encoding_is_reported_and_refused_by_migrate(
    other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_server.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS latin")
        conn.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    findings = findings_at(other_server.url("latin"), monkeypatch)
    assert "DATABASE_ENCODING" in codes(findings)
    assert "ENCODING 'UTF8'" in next(finding.fix for finding in findings if finding.code == "DATABASE_ENCODING")
    result = CliRunner().invoke(group, ["migrate"])
    assert result.exit_code == 1
    assert "LATIN1" in result.output
    assert "ENCODING 'UTF8'" in result.output


def test_ignored_libpq_variables_are_reported(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    findings = findings_at(server.url("patient"), monkeypatch)
    assert "PG_VARIABLES_UNREAD" in codes(findings)
    assert "DATABASE_UNREACHABLE" not in codes(findings)


def test_asynchronous_commits_are_reported(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DATABASE_NOT_DURABLE" not in codes(findings_at(server.url("patient"), monkeypatch))
    with server.connect() as conn:
        conn.execute("ALTER DATABASE patient SET synchronous_commit = off")
    assert "DATABASE_NOT_DURABLE" in codes(findings_at(server.url("patient"), monkeypatch))


def test_standby_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        second.follow(first)
        second.start()
        assert "DATABASE_IS_STANDBY" in codes(findings_at(second.url(), monkeypatch))
        assert "DATABASE_IS_STANDBY" not in codes(findings_at(first.url(), monkeypatch))
        several = first.url().replace(f":{first.port}/", f":{first.port},127.0.0.1:{second.port}/")
        assert "STANDBY_ASYNCHRONOUS" in codes(findings_at(several, monkeypatch))
        with first.connect() as conn:
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            conn.execute("SELECT pg_reload_conf()")
        assert "STANDBY_SYNCHRONOUS" in codes(findings_at(several, monkeypatch))
        assert not {"STANDBY_SYNCHRONOUS", "STANDBY_ASYNCHRONOUS"} & set(codes(findings_at(first.url(), monkeypatch)))


def test_password_of_a_url_with_several_hosts_is_not_shown(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://{USER}:hunter2@127.0.0.1:1,127.0.0.1:{server.port}/patient"
    findings = findings_at(url, monkeypatch)
    assert "DATABASE_UNREACHABLE" in codes(findings)
    assert not any("hunter2" in finding.as_line() for finding in findings)


if PGBOUNCER:

    @pytest.mark.parametrize(("mode", "code"), [("transaction", "POOLER_BY_TRANSACTION"), ("session", "POOLER")])
    def test_pooler_is_reported_with_its_mode(
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
            assert wait_until(lambda: "DATABASE_UNREACHABLE" not in codes(findings_at(url, monkeypatch)), 20)
            assert code in codes(findings_at(url, monkeypatch))
            assert not [
                finding
                for finding in codes(findings_at(server.url("patient"), monkeypatch))
                if finding.startswith("POOLER")
            ]
        finally:
            pooler.terminate()
            pooler.wait(10)
