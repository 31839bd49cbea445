"""Tests of the rehearsals without containers: what they read from the files, and what they say when they cannot run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import redis
import yaml

from tools.rehearsal.command import run_if_possible
from tools.rehearsal.compose import OPTIONS, interpolate
from tools.rehearsal.compose_rehearsal import BACKUP, RESTORE, copy_checkout
from tools.rehearsal.podman import CannotRehearse, WrongResult
from tools.rehearsal.systemd_rehearsal import page_block
from workers.settings import CHECKOUT


def test_variables_of_the_compose_file_are_replaced_as_compose_does() -> None:
    text = "a ${PORT:-5432} b ${NAME:-Unwind <no-reply@localhost>} $$HOME"
    assert interpolate(text, {"PORT": "15432"}) == "a 15432 b Unwind <no-reply@localhost> $HOME"


def test_no_option_of_the_compose_file_is_left_out() -> None:
    services = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"].values()
    assert {option for service in services if "profiles" not in service for option in service} == OPTIONS - {
        "entrypoint",
        "profiles",
    }


def test_a_copy_has_the_rights_of_a_clone_with_umask_077_and_no_secrets(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    assert (tmp_path / "Dockerfile").read_text() == (CHECKOUT / "Dockerfile").read_text()
    assert (tmp_path / "workers" / "app.py").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "deploy" / "make-secrets").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "deploy" / "secrets").exists()


def test_the_page_has_the_commands_that_a_rehearsal_follows() -> None:
    page = (CHECKOUT / "docs" / "operate.md").read_text()
    assert RESTORE in page
    assert f"backup {BACKUP}" in page


def test_the_page_has_the_commands_that_install_the_units() -> None:
    commands = page_block("Under systemd", "console")
    assert commands.startswith("useradd ")
    assert commands.count("systemctl daemon-reload && systemctl enable --now unwind.target") == 1
    assert "CREATE DATABASE unwind " in page_block("PostgreSQL", "sql")


@pytest.mark.parametrize("kind", ["compose", "systemd", "hosts"])
def test_rehearsal_names_what_the_machine_lacks(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers", "rehearse", kind]
    done = subprocess.run(
        command, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert ("On Debian: apt-get install" if os.getuid() == 0 else "needs root") in done.stderr


def test_short_form_says_in_one_line_what_the_machine_lacks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers", "rehearse", "compose", "--short"]
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (0, "", 1)
    assert lines[0].startswith("docker-compose.yml was not started on this machine: ")
    assert ("There is no apt-get" if os.getuid() == 0 else "needs root") in lines[0]


@pytest.mark.parametrize(
    ("problem", "fails"),
    [
        (WrongResult("Lost"), True),
        (CannotRehearse("podman run failed:\nno such network"), False),
        (subprocess.TimeoutExpired("podman", 60), False),
        (redis.ConnectionError("refused"), False),
    ],
)
def test_short_form_fails_only_if_the_product_does_wrong(
    problem: Exception, fails: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def rehearsal(_report: Callable[[str], None]) -> None:
        raise problem

    with pytest.raises(click.ClickException, match="Lost") if fails else contextlib.nullcontext():
        run_if_possible(rehearsal)
    assert len(capsys.readouterr().err.splitlines()) == (not fails)


def test_short_form_ends_in_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tools.rehearsal.command.SHORT_SECONDS", 1)
    run_if_possible(lambda _report: signal.pause())
    assert "1 s were not enough" in capsys.readouterr().err
