"""A program: kills a pool's process that has a part of a job in its pipe, and runs a job in its successor.

It is a process of its own because forked processes would inherit the signal handlers of a test session.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import kombu.asynchronous
from celery import Celery
from celery.concurrency import get_implementation

SECONDS = 30.0


def main(pool_name: str, part: bytes) -> None:
    app = Celery()
    hub: Any = kombu.asynchronous.Hub()  # type: ignore[no-untyped-call]
    kombu.asynchronous.set_event_loop(hub)
    task_pool = get_implementation(pool_name)(1, app=app, threads=False, putlocks=False, initargs=(app, "pool"))
    task_pool.start()
    try:
        task_pool.register_with_event_loop(hub)
        loop = hub.create_loop()

        def run_until(holds: Callable[[], object]) -> None:
            end = time.monotonic() + SECONDS
            while not holds():
                if time.monotonic() > end:
                    raise SystemExit("the job was not done")
                next(loop)

        def run_job() -> int:
            result = task_pool.apply_async(os.getpid, ())
            run_until(result.ready)
            return int(result.get())

        process = task_pool._pool._pool[0]
        assert run_job() == process.pid
        os.kill(process.pid, signal.SIGSTOP)  # it reads no more than it has
        os.write(process.inqW_fd, part)
        os.kill(process.pid, signal.SIGKILL)
        run_until(lambda: process not in task_pool._pool._pool)
        assert run_job() == task_pool._pool._pool[0].pid
    finally:
        task_pool.terminate()
    print("the job was done")


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]))
