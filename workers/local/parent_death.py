"""A launcher that ends a program when the process that started it dies.

`python -m workers.local.parent_death PARENT SIGNAL [ARGS ...]` asks the kernel for SIGNAL when process PARENT dies,
then runs Celery's command line, or one of Unwind's (`metrics`), in the same process. It is a program, since a function
between fork and exec is unsafe in a process that has threads."""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Sequence

from workers.embedded.processes import parent_death_hook

UNWIND_COMMANDS = frozenset({"metrics"})
TOKEN_ENV = "UNWIND_SUPERVISED"  # noqa: S105 - a variable by which a supervisor recognises its own processes


def run_program(args: Sequence[str]) -> None:
    if UNWIND_COMMANDS.intersection(args[:1]):
        sys.argv = ["unwind", *args]
        runpy.run_module("workers", run_name="__main__")
        return

    from celery.__main__ import main as celery

    sys.argv = ["celery", *args]
    celery()


def main() -> None:
    parent_death_hook(int(sys.argv[1]), signal.Signals(int(sys.argv[2])))()

    run_program(sys.argv[3:])


if __name__ == "__main__":
    main()
