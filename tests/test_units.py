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
    """Every value of one setting."""
    return re.findall(rf"^{name}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


def test_the_target_wants_all_that_up_runs() -> None:
    """Schema, both groups, beat, Flower, metrics; each group reads the queues that it reads elsewhere."""
    wanted = " ".join(lines("unwind.target", "Wants")).split()
    groups = [f"unwind-worker@{group}.service" for group in WORKER_GROUPS]
    assert sorted(wanted) == sorted([*groups, *(unit for unit in UNITS if "@" not in unit)])
    for group, queues in WORKER_GROUPS.items():
        assert f"QUEUES={','.join(queues)}\n" in (FOLDER / f"worker-{group}.env").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_units_may_do_nothing_special_and_get_secrets_as_credentials(unit: str) -> None:
    """Not root, a read-only system, no capabilities; each secret is a file of this unit alone."""
    assert lines(unit, "User") == ["unwind"]
    assert lines(unit, "NoNewPrivileges") == ["yes"]
    assert lines(unit, "ProtectSystem") == ["strict"]
    assert lines(unit, "CapabilityBoundingSet") == [""]
    credentials = {one.partition(":")[0] for one in lines(unit, "LoadCredential")}
    named = {one.rpartition("%d/")[2] for one in lines(unit, "Environment") if "_FILE=" in one}
    assert credentials == named != set()
    script = (CHECKOUT / "deploy" / "make-secrets").read_text()
    assert all(f"write_secret {name} " in script for name in credentials)
    assert ("database_url" in credentials) == (unit != "unwind-flower.service")


@pytest.mark.parametrize("unit", WATCHED)
def test_what_hangs_is_replaced_and_what_works_may_finish(unit: str) -> None:
    """Systemd is told of every look of the watcher; TERM is followed by KILL only after the hard limit of a task."""
    assert lines(unit, "Type") == ["notify"]
    assert int(lines(unit, "WatchdogSec")[0]) >= 60
    assert lines(unit, "Restart") == ["always"]
    assert lines(unit, "Requires") == ["unwind-migrate.service"]
    if "worker" in unit:
        assert int(lines(unit, "TimeoutStopSec")[0]) > HARD_TIME_LIMIT_SECONDS
        assert lines(unit, "KillMode") == ["mixed"]


def test_systemd_understands_them(tmp_path: Path) -> None:
    """`systemd-analyze verify` with the paths of this checkout; reported as not run where there is no systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("not run: there is no systemd-analyze on this machine")
    venv = str(Path(sys.executable).parents[1])
    for path in FOLDER.glob("unwind*"):
        text = path.read_text().replace("/opt/unwind/.venv", venv).replace("/opt/unwind", str(CHECKOUT))
        (tmp_path / path.name.replace("@.", "@commands.")).write_text(text)
    shutil.copy(tmp_path / "unwind-worker@commands.service", tmp_path / "unwind-worker@sweeps.service")
    said = subprocess.run(
        [program, "verify", "--man=no", *sorted(str(path) for path in tmp_path.iterdir())],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in said.stderr.splitlines() if "unwind" in line]
    assert (said.returncode, ours) == (0, []), said.stderr
