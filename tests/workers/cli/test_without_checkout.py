"""Tests of the product without its checkout, as in the image: the commands it names exist there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers.embedded.processes import wait_until
from workers.settings import CHECKOUT

PACKAGES = ("policies", "models", "tasks", "schedules", "workers", "web")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(image: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers", *words],
        # No user can create a directory in /proc: like a read-only container.
        env={**os.environ, "PYTHONPATH": str(image), "PYTHONSAFEPATH": "1", "UNWIND_DATA": "/proc/data", **variables},
        cwd=image,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_doctor_and_help_name_commands_that_work_in_an_image(
    image: Path, empty_database_url: str, broker_url: str
) -> None:
    servers = {"DATABASE_URL": empty_database_url, "CELERY_BROKER_URL": broker_url}
    doctor, general, unmigrated = run(image, "doctor", **servers), run(image, "--help"), run(image, "audit", **servers)
    assert "SCHEMA_MISSING" in " ".join(doctor.stdout.split())
    assert "Fix: run python -m workers migrate." in " ".join(doctor.stdout.split())
    assert "start the workers and beat" in " ".join(doctor.stdout.split())
    assert "Usage: python -m workers [OPTIONS] COMMAND" in general.stdout
    assert "Create them with `python -m workers migrate`." in unmigrated.stderr
    for done in (doctor, general, unmigrated):
        assert "./run" not in done.stdout + done.stderr


def test_a_backup_to_a_read_only_place_fails_with_a_sentence(image: Path, database_url: str, broker_url: str) -> None:
    done = run(image, "backup", "/proc/unwind.dump", DATABASE_URL=database_url, CELERY_BROKER_URL=broker_url)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot write /proc/unwind.dump.part: ")
    assert "Name a file in a directory that this user may write to" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("celery", "-A", "workers.app", "beat"), marks=pytest.mark.long),
        pytest.param(("workers", "metrics"), marks=pytest.mark.long),
        ("celery", "-A", "workers.app", "worker", "-Q", "sweeps", "-c", "1", "--without-gossip", "--without-mingle"),
    ],
    ids=["beat", "metrics", "worker"],
)
def test_processes_start_without_a_directory_to_write_to(
    image: Path, database_url: str, broker_url: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Their containers have no volume, or need none."""
    files = {"UNWIND_READY_FILE": str(tmp_path / "ready"), "UNWIND_ALIVE_FILE": str(tmp_path / "alive")}
    variables = {
        **os.environ,
        **files,
        "PYTHONPATH": str(image),
        "UNWIND_DATA": "/proc/data",
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker_url,
        "UNWIND_METRICS_PORT": "0",
    }
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", *words], env=variables, cwd=image, stdout=log, stderr=log)
        try:
            assert wait_until(lambda: (tmp_path / "ready").exists() or process.poll() is not None, 60)
            statuses = [
                subprocess.run(
                    [sys.executable, "-m", "workers.monitoring.probes", state],
                    env=variables,
                    capture_output=True,
                    text=True,
                    check=False,
                ).returncode
                for state in ("ready", "alive")
            ]
        finally:
            process.terminate()
            process.wait(60)
        log.seek(0)
        assert statuses == [0, 0], log.read()
