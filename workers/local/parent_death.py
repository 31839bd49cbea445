"""A launcher that ends a program when the process that started it dies.

`python -m workers.local.parent_death PARENT [ARGS ...]` asks the kernel for TERM when process PARENT dies, then runs
Celery's command line, or one of Unwind's (`metrics`), in the same process. A program that cannot end by itself is
killed later, with its process group: a worker may wait for a broker that died with the same parent. It is a program,
since a function between fork and exec is unsafe in a process that has threads.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

from workers.embedded.processes import parent_death_hook

UNWIND_COMMANDS = frozenset({"metrics", "web"})
PARENT_CHECK_INTERVAL = 1.0
GRACE_SECONDS = 20.0
"""Seconds between the parent's death and the kill; a supervisor that lives waits as long before its second signal."""


def with_parent_death(args: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "workers.local.parent_death", str(os.getpid()), *args]


def end_on_parent_death(parent: int) -> None:
    """Make this process end after its parent: by TERM, or else killed after `GRACE_SECONDS`."""
    parent_death_hook(parent, signal.SIGTERM)()
    threading.Thread(target=_kill_after_parent, args=(parent,), name="parent watch", daemon=True).start()


def _kill_after_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_INTERVAL)
    time.sleep(GRACE_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def run_launched_program(args: Sequence[str]) -> None:
    name, module = ("unwind", "workers") if UNWIND_COMMANDS.intersection(args[:1]) else ("celery", "celery")
    sys.argv = [name, *args]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    end_on_parent_death(int(sys.argv[1]))
    run_launched_program(sys.argv[2:])
