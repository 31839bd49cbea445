"""A process that imports Celery once and forks the programs of a supervisor.

Each program needs the same two seconds of imports. The preforker imports while servers and schema are still being made,
and then forks every program that the supervisor requests, each in its own process group. The programs end with the
preforker, and the preforker ends with the supervisor. What it saves: docs/decisions/0018.

`python -m workers.local.preforker PARENT` reads one JSON object per line ({name, args, environment, log}) and writes
one per line: {"pid": ...} for each request in turn, {"ended": PID, "status": N} whenever a program ends."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from workers.embedded.data_dir import open_log
from workers.embedded.processes import identify_process, is_alive, libc, parent_death_hook, wait_until
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

    def wait(self, timeout: float) -> int:
        if not wait_until(lambda: self.poll() is not None, timeout):
            raise subprocess.TimeoutExpired(["celery"], timeout)
        return self.poll() or 0

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Preforker:
    def __init__(self, log: Path) -> None:
        # /proc shows a fork the environment that this process began with, so the supervisor's token is set here.
        self.token = secrets.token_hex(8)
        with open_log(log) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.local.preforker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, TOKEN_ENV: self.token},
                process_group=0,  # Ctrl-C in the terminal is for the supervisor
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._events = self._process.stdin, self._process.stdout
        self._unread = b""
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
        request = {"name": name, "args": list(args), "environment": dict(environment), "log": str(log)}
        with self._lock:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            end = time.monotonic() + 60
            while not self._forked:
                if not self.is_alive() or time.monotonic() > end:
                    raise OSError("the preforker does not answer")
                self._read_events(0.1)
            return ForkedProcess(self, self._forked.pop(0))

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._events.close()

    def _read_events(self, seconds: float) -> None:
        # Read what has been written; wait that long for the first of it.
        while select.select([self._events], [], [], seconds)[0] and (more := os.read(self._events.fileno(), 65536)):
            *lines, self._unread = (self._unread + more).split(b"\n")
            for event in map(json.loads, lines):
                if "pid" in event:
                    self._ended.pop(int(event["pid"]), None)  # of an earlier program with the same id
                    self._forked.append(int(event["pid"]))
                else:
                    self._ended[int(event["ended"])] = int(event["status"])
            seconds = 0


# -- the preforking process --------------------------------------------------------------------------------------------


def main() -> None:
    parent_death_hook(int(sys.argv[1]), signal.SIGTERM)()
    for name in PRELOADED_LIBRARIES:
        importlib.import_module(name)
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        _report_exits()
        if not readable:
            continue
        more = os.read(0, 65536)
        if not more:
            return
        *lines, pending = (pending + more).split(b"\n")
        for line in lines:
            _write_preforker_event({"pid": _fork_program(json.loads(line))})


def _fork_program(request: Mapping[str, Any]) -> int:
    os.environ.update(request["environment"])
    gc.freeze()  # keeps pages shared: the collector would write into all of them
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _run_child(request, parent)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # both sides do it, so the group exists whichever runs first
    return child


def _run_child(request: Mapping[str, Any], parent: int) -> NoReturn:
    os.setpgid(0, 0)
    end_on_parent_death(parent)
    libc.prctl(PR_SET_NAME, f"unwind-{request['name']}".encode()[:15], 0, 0, 0)
    with open_log(Path(request["log"])) as log, Path(os.devnull).open("rb") as devnull:
        for target, source in ((0, devnull), (1, log), (2, log)):
            os.dup2(source.fileno(), target)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    run_launched_program(request["args"])
    # Through `main` to the interpreter's own end: Flower has threads to join, Celery has exit functions.
    raise SystemExit(0)


def _report_exits() -> None:
    with contextlib.suppress(ChildProcessError):
        for pid, status in iter(lambda: os.waitpid(-1, os.WNOHANG), (0, 0)):
            _write_preforker_event({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _write_preforker_event(event: Mapping[str, int]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main()
