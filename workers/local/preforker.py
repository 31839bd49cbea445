"""A process that imports Celery once and forks the programs of a supervisor.

Each program needs the same two seconds of imports. The preforker imports while servers and schema are still being made,
and then forks every program that the supervisor requests, each in its own process group. The programs end with the
preforker, and the preforker ends with the supervisor. What it saves: docs/decisions/0018.

`python -m workers.local.preforker PARENT DESCRIPTOR` receives the arguments of `Preforker.fork` by a connection,
and sends (PID, None) for each program in turn and (PID, STATUS) whenever one ends."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from workers.embedded.data_dir import open_log, start_process
from workers.embedded.processes import identify_process, is_alive, libc, parent_death_hook, stop_child
from workers.local import TOKEN_ENV
from workers.local.parent_death import end_on_parent_death, run_launched_program

# What every program needs. None of it reads the environment while it is imported, since that comes with the request.
PRELOADED_LIBRARIES = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "workers.transport.process_pool",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "psycopg",
    "pydantic",
    "sqlalchemy.dialects.postgresql.psycopg",
    "structlog",
    "workers.app",
    "workers.cli.metrics",
)
PR_SET_NAME = 15


class ForkedProcess:
    def __init__(self, preforker: Preforker, pid: int) -> None:
        self._preforker = preforker
        self.pid = pid
        self._identity = identify_process(pid)

    def poll(self) -> int | None:
        status = self._preforker.status_of(self.pid)
        if status is None and not self._preforker.is_alive() and not is_alive(self._identity):
            return -int(signal.SIGTERM)
        return status


class Preforker:
    def __init__(self, log: Path) -> None:
        # /proc shows a fork the environment that this process began with, so the supervisor's token is set here.
        self.token = secrets.token_hex(8)
        self._connection, theirs = Pipe()
        with theirs:
            self._process = start_process(
                [sys.executable, "-m", "workers.local.preforker", str(os.getpid()), str(theirs.fileno())],
                log,
                {**os.environ, TOKEN_ENV: self.token},
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C in the terminal is for the supervisor
            )
        self.pid = self._process.pid
        self._ended: dict[int, int] = {}
        self._forked: list[int] = []
        self._lock = threading.RLock()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def status_of(self, pid: int) -> int | None:
        with self._lock:
            self._read_events(0)
            return self._ended.get(pid)

    def fork(self, name: str, args: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess:
        with self._lock:
            self._connection.send((name, args, environment, log))
            end = time.monotonic() + 60
            while not self._forked:
                if not self.is_alive() or time.monotonic() > end:
                    raise OSError("the preforker does not answer")
                self._read_events(0.1)
            return ForkedProcess(self, self._forked.pop(0))

    def close(self) -> None:
        stop_child(self._process, (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
        self._connection.close()

    def _read_events(self, seconds: float) -> None:
        # Read what has been sent; wait that long for the first of it.
        with contextlib.suppress(EOFError, OSError):  # the preforker has ended
            while self._connection.poll(seconds):
                pid, status = self._connection.recv()
                if status is None:
                    self._ended.pop(pid, None)  # of an earlier program with the same id
                    self._forked.append(pid)
                else:
                    self._ended[pid] = status
                seconds = 0


# -- the preforking process --------------------------------------------------------------------------------------------


def main() -> None:
    parent_death_hook(int(sys.argv[1]), signal.SIGTERM)()
    for name in PRELOADED_LIBRARIES:
        importlib.import_module(name)
    with Connection(int(sys.argv[2])) as supervisor:
        while True:
            if supervisor.poll(0.1):
                try:
                    request = supervisor.recv()
                except EOFError:
                    return
                supervisor.send((_fork_program(supervisor, *request), None))
            with contextlib.suppress(ChildProcessError):
                for pid, status in iter(lambda: os.waitpid(-1, os.WNOHANG), (0, 0)):
                    supervisor.send((pid, os.waitstatus_to_exitcode(status)))


def _fork_program(supervisor: Connection, name: str, args: Any, environment: Mapping[str, str], log: Path) -> int:
    os.environ.update(environment)
    gc.freeze()  # keeps pages shared: the collector would write into all of them
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        supervisor.close()
        _run_child(parent, name, args, log)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # both sides do it, so the group exists whichever runs first
    return child


def _run_child(parent: int, name: str, args: Sequence[str], log: Path) -> NoReturn:
    os.setpgid(0, 0)
    end_on_parent_death(parent)
    libc.prctl(PR_SET_NAME, f"unwind-{name}".encode()[:15], 0, 0, 0)
    with open_log(log) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    run_launched_program(args)
    # Through `main` to the interpreter's own end: Flower has threads to join, Celery has exit functions.
    raise SystemExit(0)


if __name__ == "__main__":
    main()
