"""Tests of the doctor's checks of settings, disk, mail and Flower."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from tests.workers.monitoring.doctor.findings import codes, run, severity
from workers.embedded.data_dir import free_port
from workers.monitoring.doctor import environment, examine, run_checks
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import exit_status
from workers.settings import load_settings


def test_unknown_settings_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_CONCURENCY", "4")
    assert codes(examine()[0]) == ["SERVERS_NOT_RUNNING", "SETTING_UNREAD"]


def test_invalid_settings_are_reported_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_LOG_FORMAT", "xml")
    monkeypatch.setenv("DATABASE_URL", "mysql://me:secret-word@host/db")
    result = run("--json")
    assert result.exit_code == 2
    assert [finding["code"] for finding in json.loads(result.output)["findings"]] == ["SETTING_WRONG", "SETTING_WRONG"]
    assert "secret-word" not in result.output


def test_flower_beyond_loopback_needs_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_FLOWER_ADDRESS", "0.0.0.0")
    assert codes(examine()[0]) == ["FLOWER_EXPOSED"]
    monkeypatch.setenv("UNWIND_FLOWER_LOGIN", "ops:secret-word")
    findings = examine()[0]
    assert codes(findings) == ["FLOWER_OPEN", "SERVERS_NOT_RUNNING"]
    assert exit_status(findings) == 0
    assert "secret-word" not in str(findings)


def test_writable_flower_is_an_error(tmp_path: Path) -> None:
    findings = run_checks(Context(load_settings(data_dir=tmp_path, flower_read_only=False), external_servers=False))
    assert (codes(findings), severity(findings)) == (["FLOWER_COMMANDS"], "error")


@pytest.mark.parametrize(("free", "worst"), [(1_500_000_000, "warning"), (1_000_000, "error")])
def test_nearly_full_disk_is_reported(tmp_path: Path, free: int, worst: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: usage)
    findings = run_checks(Context(load_settings(data_dir=tmp_path), external_servers=False))
    assert (codes(findings), severity(findings)) == (["DISK_LOW"], worst)


def test_mail_server_is_probed_with_its_url(tmp_path: Path) -> None:
    def codes_of(url: str | None, *, external: bool = False) -> list[str]:
        settings = load_settings(smtp_url=url, data_dir=tmp_path)
        findings = [*environment.check_mail_server(Context(settings, external_servers=external))]
        assert "secret-word" not in str(findings)
        return codes(findings)

    port = free_port()
    assert codes_of(f"smtp://me:secret-word@127.0.0.1:{port}") == ["MAIL_SERVER_SILENT"]
    with mail_server("127.0.0.1", port):
        assert codes_of(f"smtp://127.0.0.1:{port}") == []
        assert codes_of(f"smtp://me:secret-word@127.0.0.1:{port}") == []
        assert codes_of(f"smtp://127.0.0.1:{port}?starttls=1") == ["MAIL_SERVER_NO_TLS"]
    with mail_server("127.0.0.2", port):  # this machine, by a name that isn't recognized as loopback
        assert codes_of(f"smtp://me:secret-word@127.0.0.2:{port}") == ["MAIL_PASSWORD_IN_CLEAR"]
    assert codes_of(None) == []
    assert codes_of(None, external=True) == ["MAIL_TO_FILES"]


@contextlib.contextmanager
def mail_server(host: str, port: int) -> Iterator[None]:
    """A real server without TLS."""
    server = Controller(object(), hostname=host, port=port)
    server.start()
    try:
        yield
    finally:
        server.stop()
