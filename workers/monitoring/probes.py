"""Is the program beside me alive, and does it take work?  Asked without loading it, by what its watcher leaves behind.

    python -m workers.monitoring.probes ready      # it takes messages, or has its timetable
    python -m workers.monitoring.probes alive      # lately it did what there was to do

The watcher (`workers/monitoring/watchdog.py`) touches a file at each look at which the program came on or had
nothing to do, so a program that
hangs, was stopped, or takes nothing has an old one.  The same news goes to systemd (`Type=notify`, `WatchdogSec`).
Standard library only: a check every few seconds must not cost the two seconds that loading Celery takes.
"""

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
"""Seconds: twelve looks of the watcher, and longer than it takes a deaf program to end itself."""


def report_ready() -> None:
    """The program takes work from now on."""
    _touch(READY_FILE_ENV)
    report_alive()
    _tell_systemd("READY=1")


def report_alive() -> None:
    """The program came on since the last look, or had nothing to do."""
    _touch(ALIVE_FILE_ENV)
    _tell_systemd("WATCHDOG=1")


def report_stopping() -> None:
    """The program takes no more work."""
    if path := os.environ.get(READY_FILE_ENV):
        Path(path).unlink(missing_ok=True)
    _tell_systemd("STOPPING=1")


def find_problem(question: str) -> str | None:
    """What is wrong, in one line; None when nothing is."""
    name = READY_FILE_ENV if question == "ready" else ALIVE_FILE_ENV
    path = os.environ.get(name)
    if not path:
        return f"{name} is not set, so there is nothing to judge by."
    try:
        age = time.time() - Path(path).stat().st_mtime  # noqa: TID251 - the age of a file, on the clock that dated it
    except FileNotFoundError:
        return f"not {question}: {path} is not there."
    if (
        question == "alive" and abs(age) > MAX_AGE_SECONDS
    ):  # one from the future: the clock was set back and nothing seen since
        return f"not alive: nothing was seen of it for {abs(age):.0f} s."
    return None


def _touch(name: str) -> None:
    if path := os.environ.get(name):
        with contextlib.suppress(OSError):  # a full disk must not end a worker
            Path(path).touch()


def _tell_systemd(word: str) -> None:
    if place := os.environ.get("NOTIFY_SOCKET"):
        address = "\0" + place[1:] if place.startswith("@") else place
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news:
            news.sendto(word.encode(), address)


def main(words: Sequence[str]) -> int:
    """Exit 0 when it is so, 1 when not, 2 for other words."""
    if list(words) not in (["alive"], ["ready"]):
        sys.stderr.write("python -m workers.monitoring.probes alive|ready\n")
        return 2
    wrong = find_problem(words[0])
    sys.stdout.write(f"{wrong or words[0]}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
