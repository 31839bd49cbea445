"""How does a program that we start end with us?

`python -m workers.local.parent_death PARENT SIGNAL [words ...]` asks the kernel for SIGNAL when process PARENT dies, then runs
Celery's command line, or one of our own (`metrics`), in the same process. A launcher instead of a function between
fork and exec: those are unsafe in a process that has threads.
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Sequence

UNWIND_COMMANDS = frozenset({"metrics"})
"""Commands of ours that run beside Celery's programs."""
TOKEN_ENV = "UNWIND_SUPERVISED"  # noqa: S105 - the name of the variable by which a supervisor knows its own, not a secret


def run_program(words: Sequence[str]) -> None:
    """Run `celery WORDS`, or our own command WORDS, in this process; ends with SystemExit, as command lines do."""
    if UNWIND_COMMANDS.intersection(words[:1]):
        sys.argv = ["unwind", *words]
        runpy.run_module("workers", run_name="__main__")
        return

    from celery.__main__ import main as celery

    sys.argv = ["celery", *words]
    celery()


def main() -> None:
    """Take the leash, then be the program."""
    from workers.embedded.processes import parent_death_hook

    parent_death_hook(int(sys.argv[1]), signal.Signals(int(sys.argv[2])))()

    run_program(sys.argv[3:])


if __name__ == "__main__":
    main()
