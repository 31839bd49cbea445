"""A supervisor that starts programs, restarts them when they die, and ends them.

Every program leads its own process group, recorded in `<data>/run/programs.json`, with its output in
`<data>/logs/NAME.log`. A program that dies is restarted, at once the first time and with growing delays while it keeps
dying. A stop sends TERM, then QUIT (Celery's soft shutdown), then KILL. If the supervisor itself is killed the kernel
sends TERM to its programs, and the next supervisor ends those that remain before it starts any."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import click

from workers.embedded.data_dir import log_tail, read_json, start_process, write_json
from workers.embedded.processes import ProcessIdentity, RestartBackoff, is_alive, process_group_members, wait_until
from workers.local import READY_FILE_ENV, TOKEN_ENV
from workers.local.preforker import ForkedProcess, Preforker

INITIAL_RESTART_DELAY, MAX_RESTART_DELAY = 0.5, 30.0
RESET_DEATHS_AFTER = 60.0  # seconds alive

# A supervised Celery finishes its running tasks after TERM; QUIT gives them `worker_soft_shutdown_timeout` and
# requeues the rest. KILL follows.
STOP_SIGNALS = ((signal.SIGTERM, 20.0), (signal.SIGQUIT, 25.0))
KILL_TIMEOUT = 5.0


class ProgramFailed(click.ClickException):
    pass


@dataclass(frozen=True)
class SupervisedProgram:
    """A program to keep running. `ready` returns whether it is ready; without it, the program touches its ready file.

    `celery_args`: the arguments of `celery` (or of an Unwind command) that equal `command`, for a preforker.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    restart: bool = True
    max_restart_delay: float = MAX_RESTART_DELAY
    celery_args: Sequence[str] | None = None


@dataclass
class _Child:
    program: SupervisedProgram
    process: subprocess.Popen[bytes] | ForkedProcess
    backoff: RestartBackoff
    restart_at: float | None = None

    def has_ended(self) -> bool:
        return self.process.poll() is not None


class Supervisor:
    def __init__(
        self, data_dir: Path, *, on_event: Callable[[str], None] | None = None, preforker: Preforker | None = None
    ) -> None:
        self._preforker = preforker
        self.logs = data_dir / "logs"
        self.run = data_dir / "run"
        for folder in (data_dir, self.logs, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._record = self.run / "programs.json"
        self._token = preforker.token if preforker is not None else secrets.token_hex(8)
        self._report = on_event or (lambda _message: None)
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._requests: queue.SimpleQueue[tuple[SupervisedProgram, Future[None]]] = queue.SimpleQueue()
        self.restarts = 0

    def __enter__(self) -> Self:
        kill_leftover_programs(self._record)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        try:
            with self._lock:
                self.stop(list(self._children))
        finally:
            self._stopped.set()
            self._thread.join()

    def start(self, program: SupervisedProgram) -> None:
        """Start a program and keep it running. Does not wait until it is ready.

        The supervising thread forks it: the kernel sends the parent death signal when the forking thread ends.
        """
        if program.name in self._children:
            raise ValueError(f"{program.name} has been started already")
        started: Future[None] = Future()
        self._requests.put((program, started))
        started.result(30)

    def wait_ready(self, seconds: float = 60.0, names: Sequence[str] | None = None) -> None:
        waiting = list(names if names is not None else self._children)
        end = time.monotonic() + seconds
        while waiting := [name for name in waiting if not self.is_ready(name)]:
            for name in waiting:
                child = self._children[name]
                if child.backoff.deaths > 2 or not (child.program.restart or self.is_alive(name)):
                    raise ProgramFailed(f"{name} keeps ending:\n{self.tail(name)}")
            if time.monotonic() > end:
                raise ProgramFailed(f"{waiting[0]} was not ready within {seconds:.0f} s:\n{self.tail(waiting[0])}")
            if self._stopping.wait(0.02):
                return

    def is_alive(self, name: str) -> bool:
        with self._lock:
            return not self._children[name].has_ended()

    def is_ready(self, name: str) -> bool:
        ready = self._children[name].program.ready or self.ready_file(name).exists
        return self.is_alive(name) and ready()

    def pid(self, name: str) -> int:
        with self._lock:
            return self._children[name].process.pid

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = 12) -> str:
        return log_tail(self.log(name), lines)

    def ready_file(self, name: str) -> Path:
        return self.run / f"{name}.ready"

    def stop(self, names: Sequence[str]) -> None:
        with self._lock:
            children = [self._children[name] for name in reversed(names)]
            self._stop_children(children)
            for child in children:
                del self._children[child.program.name]
                self.ready_file(child.program.name).unlink(missing_ok=True)
            self._write_supervisor_record()

    @staticmethod
    def _stop_children(children: Sequence[_Child]) -> None:
        # All side by side; then their groups, so that no grandchild remains.
        for number, grace in STOP_SIGNALS:
            for child in children:
                if not child.has_ended():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.process.pid, number)
            wait_until(lambda: all(child.has_ended() for child in children), grace)
        for child in children:
            _signal_program_group(child.process.pid, signal.SIGKILL)
        wait_until(lambda: all(child.has_ended() for child in children), KILL_TIMEOUT)

    def _spawn(self, program: SupervisedProgram) -> subprocess.Popen[bytes] | ForkedProcess:
        self.ready_file(program.name).unlink(missing_ok=True)
        environment = {
            **program.environment,
            TOKEN_ENV: self._token,
            READY_FILE_ENV: str(self.ready_file(program.name)),
        }
        if program.celery_args is not None and self._preforker is not None and self._preforker.is_alive():
            with contextlib.suppress(OSError):  # the preforker died meanwhile: start the program without it
                return self._preforker.fork(program.name, program.celery_args, environment, self.log(program.name))
        return start_process(program.command, self.log(program.name), {**os.environ, **environment}, process_group=0)

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                program, started = self._requests.get(timeout=0.1)
                self._start(program, started)
            with self._lock:
                for name, child in self._children.items():
                    if child.has_ended() and child.program.restart and not self._stopping.is_set():
                        self._restart(name, child)
        # The end of this thread sends the programs the parent death signal, and Celery may wait for itself when a
        # second signal interrupts its handling of the first.
        self._stopped.wait()

    def _start(self, program: SupervisedProgram, started: Future[None]) -> None:
        backoff = RestartBackoff(INITIAL_RESTART_DELAY, program.max_restart_delay, RESET_DEATHS_AFTER)
        try:
            with self._lock:
                self._children[program.name] = _Child(program, self._spawn(program), backoff)
                self._write_supervisor_record()
        except OSError as error:
            started.set_exception(ProgramFailed(f"{program.name} cannot be started: {error}"))
        else:
            started.set_result(None)

    def _restart(self, name: str, child: _Child) -> None:
        now = time.monotonic()
        if child.restart_at is None:
            # Children of a dead worker would keep taking messages.
            _signal_program_group(child.process.pid, signal.SIGKILL)
            delay = child.backoff.next_delay()
            child.restart_at = now + delay
            when = f" in {delay:.1f} s" if delay else ""
            self._report(f"{name} ended with {child.process.poll()}: restarting it{when}")
        if now >= child.restart_at:
            child.restart_at = now + INITIAL_RESTART_DELAY
            try:
                child.process = self._spawn(child.program)
                child.backoff.started_at, child.restart_at = now, None
                self.restarts += 1
                self._write_supervisor_record()
            except OSError as error:  # a full disk, for example; this thread must go on, as its end ends all programs
                self._report(f"{name} cannot be restarted: {error}")

    def _write_supervisor_record(self) -> None:
        programs = {name: {"pid": child.process.pid} for name, child in self._children.items()}
        if programs:
            write_json(self._record, {"token": self._token, "programs": programs})
        else:
            self._record.unlink(missing_ok=True)


def kill_leftover_programs(record: Path) -> None:
    """End the processes that a killed supervisor left behind.

    A group id may have been reused, so only processes with that supervisor's token in their environment are ended.
    """
    fields = read_json(record)
    token, programs = str(fields.get("token", "")), fields.get("programs", {})
    pids = [int(entry["pid"]) for entry in programs.values()]
    groups = {pid: members for pid in pids if (members := process_group_members(pid, f"{TOKEN_ENV}={token}"))}
    processes = [member for members in groups.values() for member in members]
    for number, grace in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        for group in groups:
            _signal_program_group(group, number)
        if wait_until(lambda: not any(is_alive(member) for member in processes), grace):
            break
    record.unlink(missing_ok=True)


def _signal_program_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def up_report(data_dir: Path) -> Path:
    return data_dir / "run" / "up.json"


def supervised_since(data_dir: Path) -> datetime | None:
    report = up_report(data_dir)
    if not is_alive(ProcessIdentity.from_json(read_json(report))):
        return None
    return datetime.fromtimestamp(report.stat().st_mtime, UTC)
