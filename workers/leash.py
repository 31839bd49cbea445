"""How does a program that we start end with us, and how does it say that it is ready?

`python -m workers.leash PARENT SIGNAL [words ...]` asks the kernel for SIGNAL when process PARENT dies, then runs
Celery's command line, or one of our own (`metrics`), in the same process. When the worker takes messages, or beat has
its timetable, the file named by UNWIND_READY_FILE appears. A launcher instead of a function between fork and exec:
those are unsafe in a process that has threads.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

READY_FILE = "UNWIND_READY_FILE"
OURS = ("metrics",)
"""Commands of ours that run beside Celery's programs."""
TOKEN = "UNWIND_SUPERVISED"  # noqa: S105 - the name of the variable by which a supervisor knows its own, not a secret


def announce_ready(**_: Any) -> None:
    """Make the ready file. Celery's signals call it with arguments of no interest here."""
    path = os.environ.get(READY_FILE)
    if path:
        Path(path).touch()


def become(words: Sequence[str]) -> None:
    """Run `celery WORDS`, or our own command WORDS, in this process; ends with SystemExit, as command lines do."""
    if words[0] in OURS:
        sys.argv = ["unwind", *words]
        runpy.run_module("workers", run_name="__main__")
        return

    from celery.signals import beat_init, worker_ready

    worker_ready.connect(announce_ready)
    beat_init.connect(announce_ready)

    from celery.__main__ import main as celery

    sys.argv = ["celery", *words]
    celery()


def main() -> None:
    """Take the leash, then be the program."""
    from workers.servers.processes import ends_with_parent

    ends_with_parent(int(sys.argv[1]), signal.Signals(int(sys.argv[2])))()

    become(sys.argv[3:])


if __name__ == "__main__":
    main()
