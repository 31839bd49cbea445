"""Tests of the rehearsals without containers: what they read from the files, and what they say when they cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.rehearsal.compose import OPTIONS, interpolate
from tools.rehearsal.compose_rehearsal import BACKUP, RESTORE, copy_checkout
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


@pytest.mark.parametrize("kind", ["compose", "hosts"])
def test_rehearsal_names_what_the_machine_lacks(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers", "rehearse", kind]
    done = subprocess.run(
        command, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert ("On Debian: apt-get install" if os.getuid() == 0 else "needs root") in done.stderr
