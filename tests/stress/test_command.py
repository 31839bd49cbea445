"""Tests of the `./run torture` command: its output and its cleanup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stress.environment import STRAY_GROUP
from workers.embedded.processes import ProcessIdentity, identify_process, is_alive, wait_until
from workers.settings import CHECKOUT


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "stress", "--minutes", "1", "--seed", "12"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def all_started(process: subprocess.Popen[str], folder: Path) -> list[ProcessIdentity]:
    found: list[psutil.Process] = []

    def everything() -> bool:
        found[:] = [one for one in psutil.process_iter() if _belongs(one, process.pid, str(folder))]
        return sum(_is_program(one) for one in found) >= 11  # three groups of three, two beats

    assert wait_until(everything, 120, step=0.1)
    return [identify_process(one.pid) for one in found]


def _belongs(one: psutil.Process, head: int, folder: str) -> bool:
    try:
        return any(parent.pid == head for parent in one.parents()) or any(folder in word for word in one.cmdline())
    except psutil.Error:
        return False


def _is_program(one: psutil.Process) -> bool:
    try:
        return one.name().startswith("unwind-") or not {f"{STRAY_GROUP}@%h", "beat"}.isdisjoint(one.cmdline())
    except psutil.Error:
        return False


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process_behind(
    started: subprocess.Popen[str], tmp_path: Path, how: signal.Signals
) -> None:
    assert started.stdout is not None
    assert started.stdout.readline().startswith("seed 12 ")
    marks = all_started(started, tmp_path)
    started.send_signal(how)
    started.wait(110)  # TERM, QUIT and KILL of eight programs have 50 s in all, and servers follow
    assert wait_until(lambda: not any(is_alive(mark) for mark in marks), 60), [mark for mark in marks if is_alive(mark)]
