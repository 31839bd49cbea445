"""Tests that the demo runs its whole story with real programs and leaves no process behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.workers.simulation.test_demo_bills import read_bills

CHECKOUT = Path(__file__).resolve().parents[3]


def marked(name: str) -> list[psutil.Process]:
    """The living processes that have this variable in their environment."""
    processes = []
    for process in psutil.process_iter():
        try:
            if name in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(240)
def test_demo_plays_its_story_and_ends(tmp_path: Path) -> None:
    """`demo --once` ends with 0 within two minutes; servers, workers and data are gone."""
    mark = f"UNWIND_TEST_{os.getpid()}"
    environment = {
        n: v for n, v in os.environ.items() if not n.startswith(("UNWIND_", "CELERY_")) and n != "DATABASE_URL"
    }
    environment = {**environment, "PYTHONPATH": str(CHECKOUT), "TMPDIR": str(tmp_path), mark: "1"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers", "demo", "--once"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=200,
        check=False,
    )
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert took < 120
    assert re.search(r"Flower +http://127\.0\.0\.1:\d+/", done.stdout)
    for counted in (
        "alerts unlocked, each once",
        "orders cancelled",
        "units returned",
        "fees credited",
        "sellers notified",
    ):
        assert re.search(rf"{counted}\D+[1-9]", done.stdout), (counted, done.stdout)
    assert len(read_bills(done.stdout)) == 3, done.stdout
    assert marked(mark) == []
    assert list(tmp_path.iterdir()) == []
