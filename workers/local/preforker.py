"""How do several Celery programs start in the time of one?

Each needs the same two seconds of imports. One process pays for them once, while servers and schema are still being
made, and then forks every program that the supervisor asks for: heads of process groups of their own, on the leash of
this process, which itself is on the leash of the supervisor's. (Starting two workers, beat and Flower took 7 s of
imports on two cores this way before, and takes 3 s now.)

`python -m workers.local.preforker PARENT` reads one JSON object a line ({name, words, environment, log}) and writes one a line:
{"pid": ...} for each request in turn, {"ended": PID, "status": N} whenever one ends.
"""

from __future__ import annotations

import contextlib
import ctypes
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from workers.embedded.processes import LINUX, identify_process, parent_death_hook, wait_until
from workers.embedded.processes import is_alive as alive
from workers.local.parent_death import TOKEN_ENV, run_program

# What every program needs. None of it looks at the environment while it is imported: that comes with the requests.
LIBRARIES = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.prefork",
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
    """A forked program, with the part of `subprocess.Popen` that a supervisor needs."""

    def __init__(self, preforker: Preforker, pid: int) -> None:
        self._nursery = preforker
        self.pid = pid
        self._mark = identify_process(pid)

    @property
    def returncode(self) -> int | None:
        """The exit status (negative for a signal), or None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """The exit status once it has ended. With its parent gone nobody can tell it: then -15, as by the leash."""
        status = self._nursery.status_of(self.pid)
        if status is None and not self._nursery.is_alive() and not alive(self._mark):
            return -int(signal.SIGTERM)
        return status

    def wait(self, timeout: float) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired."""
        if not wait_until(lambda: self.poll() is not None, timeout):
            raise subprocess.TimeoutExpired(["celery"], timeout)
        return self.poll() or 0

    def send_signal(self, number: signal.Signals) -> None:
        """To the head alone. Does nothing once it has ended, for its id may be somebody else's by then."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Preforker:
    """The supervisor's side: one process that forks programs."""

    def __init__(self, log: Path) -> None:
        # Forks show the kernel the environment that this process began with, so their supervisor's token is set here.
        self.token = secrets.token_hex(8)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.local.preforker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, TOKEN_ENV: self.token},
                process_group=0,  # Ctrl-C in the terminal is for the supervisor
            )
        self._ended: dict[int, int] = {}
        self._born: list[int] = []
        self._news = threading.Condition()
        self._asking = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="preforker", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process that forks."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it can fork programs."""
        return self._process.poll() is None

    def status_of(self, pid: int) -> int | None:
        """The exit status of a program that has ended."""
        with self._news:
            return self._ended.get(pid)

    def fork(self, name: str, words: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess:
        """Run `celery WORDS`, or ours, in a fork. Raises OSError when the preforker is gone or silent for a minute."""
        request = {"name": name, "words": list(words), "environment": dict(environment), "log": str(log)}
        with self._asking:
            _stream(self._process.stdin).write(json.dumps(request).encode() + b"\n")
            _stream(self._process.stdin).flush()
            with self._news:
                if not self._news.wait_for(lambda: bool(self._born) or not self.is_alive(), 60) or not self._born:
                    raise OSError("the preforker gives no answer")
                return ForkedProcess(self, self._born.pop(0))

    def close(self) -> None:
        """End it. Its programs, if there still are any, get TERM from the kernel."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._reader.join(5)
        _stream(self._process.stdout).close()

    def _read(self) -> None:
        for line in _stream(self._process.stdout):
            said = json.loads(line)
            with self._news:
                if "pid" in said:
                    self._ended.pop(int(said["pid"]), None)  # of an earlier one with the same id
                    self._born.append(int(said["pid"]))
                else:
                    self._ended[int(said["ended"])] = int(said["status"])
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("no pipe to the preforker")
    return stream


# -- the process itself ------------------------------------------------------------------------------------------------


def main() -> None:
    """Load what all programs need, then fork on request until the supervisor closes the pipe."""
    parent_death_hook(int(sys.argv[1]), signal.SIGTERM)()
    for name in LIBRARIES:
        importlib.import_module(name)
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        _report_ends()
        if not readable:
            continue
        more = os.read(0, 65536)
        if not more:
            return
        *lines, pending = (pending + more).split(b"\n")
        for line in lines:
            _answer({"pid": _fork(json.loads(line))})


def _fork(request: Mapping[str, Any]) -> int:
    os.environ.update(request["environment"])
    gc.freeze()  # what is shared now stays shared: the collector would copy every page by writing into it
    here = os.getpid()
    child = os.fork()
    if child == 0:
        _become(request, here)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # both sides do it: whoever is asked first, the group is there
    return child


def _become(request: Mapping[str, Any], parent: int) -> NoReturn:
    os.setpgid(0, 0)
    parent_death_hook(parent, signal.SIGTERM)()
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_NAME, f"unwind-{request['name']}".encode()[:15], 0, 0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    silence = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, silence), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(log)
    os.close(silence)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    run_program(request["words"])
    # Through `main` to the interpreter's own end: Flower has threads to join, Celery has exit functions.
    raise SystemExit(0)


def _report_ends() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _answer(said: Mapping[str, int]) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
