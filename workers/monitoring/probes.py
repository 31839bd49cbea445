"""Liveness and readiness probes: programs touch files and notify systemd, and `python -m` checks the files' age.

    python -m workers.monitoring.probes ready      # a worker takes messages; beat has its timetable
    python -m workers.monitoring.probes alive      # it made progress lately, or had nothing to do

The watchdog of a worker or beat (`workers/monitoring/watchdog.py`) reports at each poll at which the program made
progress or had nothing to do, so the file of a program that hangs, was stopped or takes nothing is old, and systemd
knows too (`Type=notify`, `WatchdogSec`).  Standard library only: a probe runs every few seconds, and loading Celery
takes two."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from workers.local import ALIVE_FILE_ENV, READY_FILE_ENV

MAX_AGE_SECONDS = 60.0
"""Twelve polls of the watchdog, and longer than a stalled program takes to end itself."""


def report_ready_to_probes() -> None:
    _touch_probe_file(READY_FILE_ENV)
    report_alive_to_probes()
    _notify_systemd_of_probe("READY=1")


def report_alive_to_probes() -> None:
    _touch_probe_file(ALIVE_FILE_ENV)
    _notify_systemd_of_probe("WATCHDOG=1")


def report_stopping_to_probes(**_: object) -> None:
    if path := os.environ.get(READY_FILE_ENV):
        Path(path).unlink(missing_ok=True)
    _notify_systemd_of_probe("STOPPING=1")


def find_probe_problem(probe: str) -> str | None:
    name = READY_FILE_ENV if probe == "ready" else ALIVE_FILE_ENV
    path = os.environ.get(name)
    if not path:
        return f"{name} is not set, so the probe has no file to check."
    try:
        age = time.time() - Path(path).stat().st_mtime  # noqa: TID251 - the age of a file, on the clock that dated it
    except FileNotFoundError:
        return f"not {probe}: {path} does not exist."
    if probe == "alive" and abs(age) > MAX_AGE_SECONDS:  # also in the future, after the clock was set back
        return f"not alive: no progress for {abs(age):.0f} s."
    return None


def _touch_probe_file(name: str) -> None:
    if path := os.environ.get(name):
        with contextlib.suppress(OSError):  # a full disk must not end a worker
            Path(path).touch()


def _notify_systemd_of_probe(state: str) -> None:
    if path := os.environ.get("NOTIFY_SOCKET"):
        address = "\0" + path[1:] if path.startswith("@") else path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify_socket:
            notify_socket.sendto(state.encode(), address)


def run_probe(args: Sequence[str]) -> int:
    if list(args) not in (["alive"], ["ready"]):
        sys.stderr.write("Usage: python -m workers.monitoring.probes alive|ready\n")
        return 2
    problem = find_probe_problem(args[0])
    sys.stdout.write(f"{problem or args[0]}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(run_probe(sys.argv[1:]))
