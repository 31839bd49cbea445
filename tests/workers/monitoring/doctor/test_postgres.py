"""Tests of the findings about an external PostgreSQL, on a real server and behind a real pooler where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from models.db import session_settings
from models.migrations import upgrade
from tests.plugins.pooler import PGBOUNCER, pooler
from tests.plugins.postgres import USER, PostgresServer, new_server
from tests.workers.monitoring.doctor.findings import codes
from workers.cli import group
from workers.monitoring.doctor import connect_to_servers, database, examine
from workers.monitoring.doctor.context import open_context
from workers.monitoring.doctor.findings import Finding
from workers.settings import load_settings

pytestmark = pytest.mark.long


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
    assert not any("hunter2" in finding.message + finding.fix for finding in findings)


if PGBOUNCER:

    @pytest.mark.parametrize("mode", ["transaction", "session"])
    def test_pooler_needs_a_url_past_it(mode: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        upgrade(server.url("patient"))

        def found(url: str, direct: str) -> list[str]:
            monkeypatch.setenv("DATABASE_URL", url)
            monkeypatch.setenv("UNWIND_DIRECT_DATABASE_URL", direct)
            with open_context(load_settings()) as context:
                connect_to_servers(context)
                with context.transaction():
                    return codes([*database.check_session_settings(context), *database.check_pooler(context)])

        with pooler(server.url("patient"), pool_mode=mode, default_pool_size="9") as url:
            assert found(url, "") == ["POOLER_WITHOUT_DIRECT_URL"]
            assert found(url, server.url("patient")) == ["POOLER"]
            assert found(url, server.url("postgres")) == ["DIRECT_URL_ELSEWHERE"]
            assert found(url, url) == ["DIRECT_URL_POOLED"]
            assert found(url, "postgresql://nobody@127.0.0.1:1/patient") == ["DIRECT_URL_UNREACHABLE"]
            assert found(server.url("patient"), server.url("patient")) == []

    def test_settings_that_a_pooler_loses_are_reported(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also of a pooler that looks like PostgreSQL."""
        upgrade(server.url("patient"))
        assert " <> :pid" in session_settings._FIND_SESSION_ROLE.text
        monkeypatch.setattr(
            session_settings,
            "_FIND_SESSION_ROLE",
            text(session_settings._FIND_SESSION_ROLE.text.replace(" <> :pid", " = 0")),
        )
        assert "SETTINGS_NOT_IN_FORCE" not in codes(findings_at(server.url("patient"), monkeypatch))
        with pooler(server.url("patient"), default_pool_size="9") as url:
            findings = findings_at(url, monkeypatch)
        (finding,) = [finding for finding in findings if finding.code == "SETTINGS_NOT_IN_FORCE"]
        assert "role" in finding.message
