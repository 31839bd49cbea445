"""Tests of the systemd units, read as text and checked by systemd where it is installed; none is started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers.local.process_specs import WORKER_GROUPS
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = CHECKOUT / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
WATCHED = ["unwind-beat.service", "unwind-worker@.service"]


def lines(unit: str, name: str) -> list[str]:
    """The values of a setting."""
    return re.findall(rf"^{name}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


def test_target_starts_the_same_programs_as_up() -> None:
    units = " ".join(lines("unwind.target", "Wants") + lines("unwind.target", "Requires")).split()
    groups = [f"unwind-worker@{group}.service" for group in WORKER_GROUPS]
    assert sorted(units) == sorted([*groups, *(unit for unit in UNITS if "@" not in unit)])
    for group, queues in WORKER_GROUPS.items():
        assert f"QUEUES={','.join(queues)}\n" in (FOLDER / f"worker-{group}.env").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_units_have_no_privileges_and_get_secrets_as_credentials(unit: str) -> None:
    assert lines(unit, "User") == ["unwind"]
    assert lines(unit, "NoNewPrivileges") == ["yes"]
    assert lines(unit, "ProtectSystem") == ["strict"]
    assert lines(unit, "CapabilityBoundingSet") == [""]
    credentials = {line.partition(":")[0] for line in lines(unit, "LoadCredential")}
    variables = {line.rpartition("%d/")[2] for line in lines(unit, "Environment") if "_FILE=" in line}
    assert credentials == variables != set()
    script = (CHECKOUT / "deploy" / "make-secrets").read_text()
    assert all(f"write_secret {name} " in script for name in credentials)
    assert ("database_url" in credentials) == (unit != "unwind-flower.service")


def test_migration_waits_for_a_server_that_boots_later() -> None:
    seconds = int(lines("unwind-migrate.service", "ExecStart")[0].partition(" migrate --wait ")[2])
    assert seconds >= 86_400
    assert lines("unwind-migrate.service", "TimeoutStartSec") == ["infinity"]


def test_target_is_not_active_while_the_migration_fails() -> None:
    assert lines("unwind.target", "Requires") == lines("unwind.target", "After") == ["unwind-migrate.service"]


@pytest.mark.parametrize("unit", WATCHED)
def test_hanging_units_are_replaced_and_working_ones_may_finish(unit: str) -> None:
    assert lines(unit, "Type") == ["notify"]
    assert int(lines(unit, "WatchdogSec")[0]) >= 60
    assert lines(unit, "Restart") == ["always"]
    assert lines(unit, "Requires") == ["unwind-migrate.service"]
    if "worker" in unit:
        assert int(lines(unit, "TimeoutStopSec")[0]) > HARD_TIME_LIMIT_SECONDS
        assert lines(unit, "KillMode") == ["mixed"]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Not run where there is no systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("not run: there is no systemd-analyze on this machine (Debian: apt-get install systemd)")
    venv = str(Path(sys.executable).parents[1])
    for path in FOLDER.glob("unwind*"):
        text = path.read_text().replace("/opt/unwind/.venv", venv).replace("/opt/unwind", str(CHECKOUT))
        for group in WORKER_GROUPS if "@" in path.name else ("",):
            (tmp_path / path.name.replace("@.", f"@{group}.")).write_text(text)
    done = subprocess.run(
        [program, "verify", "--man=no", *sorted(str(path) for path in tmp_path.iterdir())],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if "unwind" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
