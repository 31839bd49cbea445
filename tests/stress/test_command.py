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


def wait_until_started(process: subprocess.Popen[str], folder: Path) -> list[ProcessIdentity]:
    processes: list[psutil.Process] = []

    def is_complete() -> bool:
        processes[:] = [process_ for process_ in psutil.process_iter() if _belongs(process_, process.pid, str(folder))]
        return sum(_is_program(process_) for process_ in processes) >= 12  # three groups of three, two beats, HTTP

    assert wait_until(is_complete, 120, step=0.1)
    return [identify_process(process_.pid) for process_ in processes]


def _belongs(process_: psutil.Process, head: int, folder: str) -> bool:
    try:
        return any(parent.pid == head for parent in process_.parents()) or any(
            folder in word for word in process_.cmdline()
        )
    except psutil.Error:
        return False


def _is_program(process_: psutil.Process) -> bool:
    try:
        return process_.name().startswith("unwind-") or not {f"{STRAY_GROUP}@%h", "beat"}.isdisjoint(process_.cmdline())
    except psutil.Error:
        return False


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_stopped_run_leaves_no_process(started: subprocess.Popen[str], tmp_path: Path, signal_: signal.Signals) -> None:
    assert started.stdout is not None
    assert started.stdout.readline().startswith("seed 12 ")
    marks = wait_until_started(started, tmp_path)
    started.send_signal(signal_)
    started.wait(110)  # TERM, QUIT and KILL of eight programs take 50 s at most, and servers follow
    assert wait_until(lambda: not any(is_alive(mark) for mark in marks), 60), [mark for mark in marks if is_alive(mark)]
