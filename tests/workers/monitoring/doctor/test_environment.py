"""Tests of the doctor's checks of settings, disk, mail and Flower."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from tests.workers.monitoring.doctor.findings import codes, run, severity
from workers.embedded import free_port
from workers.monitoring.doctor import Context, environment, examine, exit_status, run_checks
from workers.settings import load_settings


def test_settings_that_nobody_reads_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in a variable's name."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_CONCURENCY", "4")
    assert codes(examine()) == ["SERVERS_NOT_RUNNING", "SETTING_UNREAD"]


def test_settings_that_do_not_fit_are_findings_and_show_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its variable; nothing else can be asked."""
    monkeypatch.setenv("UNWIND_LOG_FORMAT", "xml")
    monkeypatch.setenv("DATABASE_URL", "mysql://me:secret-word@host/db")
    said = run("--json")
    assert said.exit_code == 2
    assert [one["code"] for one in json.loads(said.output)["findings"]] == ["SETTING_WRONG", "SETTING_WRONG"]
    assert "secret-word" not in said.output


def test_flower_open_to_others_is_an_error_without_and_a_note_with_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_FLOWER_ADDRESS", "0.0.0.0")
    assert codes(examine()) == ["FLOWER_EXPOSED"]
    monkeypatch.setenv("UNWIND_FLOWER_LOGIN", "ops:secret-word")
    found = examine()
    assert codes(found) == ["FLOWER_OPEN", "SERVERS_NOT_RUNNING"]
    assert exit_status(found) == 0
    assert "secret-word" not in str(found)


def test_flower_through_which_commands_can_be_given_is_an_error(tmp_path: Path) -> None:
    """Right for a demo, and for nothing else."""
    found = run_checks(Context(load_settings(data_dir=tmp_path, flower_read_only=False), external_servers=False))
    assert (codes(found), severity(found)) == (["FLOWER_COMMANDS"], "error")


@pytest.mark.parametrize(("free", "worst"), [(1_500_000_000, "warning"), (1_000_000, "error")])
def test_a_disk_that_fills_up_is_seen_before_it_is_full(tmp_path: Path, free: int, worst: str) -> None:
    """Of the data folder."""
    found = run_checks(
        Context(load_settings(data_dir=tmp_path), external_servers=False, free_bytes=lambda _folder: free)
    )
    assert (codes(found), severity(found)) == (["DISK_LOW"], worst)


def test_the_mail_server_must_greet_and_keep_what_its_url_says(tmp_path: Path) -> None:
    """A closed port; a server without TLS that is asked for it; one that is as it should be."""

    def asked(url: str | None, *, given: bool = False) -> list[str]:
        settings = load_settings(smtp_url=url, data_dir=tmp_path)
        found = environment.check_mail_server(Context(settings, external_servers=given))
        assert "secret-word" not in str(found)
        return codes(found)

    port = free_port()
    assert asked(f"smtp://me:secret-word@127.0.0.1:{port}") == ["MAIL_SERVER_SILENT"]
    with mail_server("127.0.0.1", port):
        assert asked(f"smtp://127.0.0.1:{port}") == []
        assert asked(f"smtp://me:secret-word@127.0.0.1:{port}") == []
        assert asked(f"smtp://127.0.0.1:{port}?starttls=1") == ["MAIL_SERVER_NO_TLS"]
    with mail_server("127.0.0.2", port):  # still this machine, but not one of the names by which that is known
        assert asked(f"smtp://me:secret-word@127.0.0.2:{port}") == ["MAIL_PASSWORD_IN_CLEAR"]
    assert asked(None) == []
    assert asked(None, given=True) == ["MAIL_TO_FILES"]


@contextlib.contextmanager
def mail_server(host: str, port: int) -> Iterator[None]:
    """A real one without TLS."""
    server = Controller(object(), hostname=host, port=port)
    server.start()
    try:
        yield
    finally:
        server.stop()
