"""Which programs run beside this one, and what happens when one of them dies?

    with Supervisor(settings.data_dir) as supervisor:
        supervisor.start(Program("commands", [...]))
        supervisor.wait_ready(30)

Every program is the head of a process group of its own, recorded in `<data>/run/programs.json`, with its output in
`<data>/logs/NAME.log`. One that dies is started again, at once the first time and ever later while it keeps dying. The
end is TERM, then QUIT (Celery's soft shutdown), then KILL. If the supervisor itself is killed the kernel sends TERM to
its programs, and the next supervisor ends whatever is left before it starts anything.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from workers.embedded.data_dir import read_json, write_json
from workers.embedded.processes import ProcessIdentity, identify_process, wait_until
from workers.embedded.processes import is_alive as alive
from workers.local import READY_FILE_ENV
from workers.local.parent_death import TOKEN_ENV
from workers.local.preforker import ForkedProcess, Preforker

INITIAL_DELAY, MAX_DELAY = 0.5, 30.0
SETTLED_AFTER = 60.0  # seconds alive after which an earlier death is forgotten
LOG_BYTES = 50_000_000

# Celery: TERM finishes the tasks at hand, QUIT on top gives them `worker_soft_shutdown_timeout` and puts the rest back.
ENDING = ((signal.SIGTERM, 20.0), (signal.SIGQUIT, 25.0), (signal.SIGKILL, 5.0))


class ProgramFailed(RuntimeError):
    """A program did not become ready; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Program:
    """One program to keep running. `ready` is asked until it says yes; without it, being alive is enough.

    `celery`: the same as `command` in Celery's (or our) own words, for a supervisor that has a preforker to fork them.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ending: Sequence[tuple[signal.Signals, float]] = ENDING
    restart: bool = True
    celery: Sequence[str] | None = None


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | ForkedProcess
    mark: ProcessIdentity
    started: float
    deaths: int = 0
    again_at: float | None = None


class Supervisor:
    """A set of programs, tended by one thread that lives as long as they do."""

    def __init__(
        self, data_dir: Path, *, on_event: Callable[[str], None] | None = None, preforker: Preforker | None = None
    ) -> None:
        self._nursery = preforker
        self.logs = data_dir / "logs"
        self.run = data_dir / "run"
        for folder in (data_dir, self.logs, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._record = self.run / "programs.json"
        self._token = preforker.token if preforker is not None else secrets.token_hex(8)
        self._say = on_event or (lambda _sentence: None)
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._tender: threading.Thread | None = None
        self._wanted: queue.SimpleQueue[tuple[Program, Future[None]]] = queue.SimpleQueue()
        self.restarts = 0

    def __enter__(self) -> Self:
        kill_leftover_groups(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, program: Program) -> None:
        """Start a program and keep it running. Does not wait until it is ready.

        The tending thread does it: to the kernel a child's parent is the thread that forked it, and a leash is pulled
        when that thread ends.
        """
        if program.name in self._children:
            raise ValueError(f"{program.name} has been started already")
        if self._tender is None:
            self._tender = threading.Thread(target=self._tend, name="supervisor", daemon=True)
            self._tender.start()
        started: Future[None] = Future()
        self._wanted.put((program, started))
        started.result(30)

    def wait_ready(self, seconds: float = 60.0, names: Sequence[str] | None = None) -> None:
        """Until all programs (or those named) are ready. Raises ProgramFailed with the log's end."""
        waiting = list(names if names is not None else self._children)
        end = time.monotonic() + seconds
        while waiting:
            waiting = [name for name in waiting if not self.is_ready(name)]
            for name in waiting:
                if self._children[name].deaths > 2 or not (self._children[name].program.restart or self.is_alive(name)):
                    raise ProgramFailed(f"{name} ends again and again:\n{self.tail(name)}")
            if waiting and time.monotonic() > end:
                raise ProgramFailed(f"{waiting[0]} was not ready within {seconds:.0f} s:\n{self.tail(waiting[0])}")
            if waiting and self._stopping.wait(0.02):
                return

    def is_alive(self, name: str) -> bool:
        """Whether the program's process runs at this moment."""
        with self._lock:
            return self._children[name].process.poll() is None

    def is_ready(self, name: str) -> bool:
        """Whether it runs and its own question about readiness is answered with yes."""
        ready = self._children[name].program.ready
        return self.is_alive(name) and (ready is None or ready())

    def pid(self, name: str) -> int:
        """The process id of the program's head, which is its process group's id too."""
        with self._lock:
            return self._children[name].mark.pid

    @property
    def names(self) -> list[str]:
        """The programs in the order in which they were started."""
        return list(self._children)

    def log(self, name: str) -> Path:
        """Where the program's output goes."""
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of a program's log, indented for a message."""
        try:
            text = self.log(name).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            text = []
        return "\n".join(f"    {line}" for line in text) or "    (its log is empty)"

    def ready_file(self, name: str) -> Path:
        """The file through which `workers.monitoring.probes` says that the program is ready."""
        return self.run / f"{name}.ready"

    def stop(self, names: Sequence[str] | None = None) -> None:
        """End the programs (or those named), all at once, the later ones first. Returns when they are gone."""
        if names is None:
            self._stopping.set()
            if self._tender is not None:
                self._tender.join()
                self._tender = None
        with self._lock:
            children = [self._children[name] for name in reversed(list(names or self._children))]
            _end(children)
            for child in children:
                self._children.pop(child.program.name, None)
                self.ready_file(child.program.name).unlink(missing_ok=True)
            self._write_record()

    def _spawn(self, program: Program) -> _Child:
        path = self.log(program.name)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
        self.ready_file(program.name).unlink(missing_ok=True)
        ours = {TOKEN_ENV: self._token, READY_FILE_ENV: str(self.ready_file(program.name))}
        if program.celery is not None and self._nursery is not None and self._nursery.is_alive():
            with contextlib.suppress(OSError):  # it died meanwhile: then the long way
                forked = self._nursery.fork(program.name, program.celery, {**program.environment, **ours}, path)
                return _Child(program, forked, identify_process(forked.pid), time.monotonic())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            process = subprocess.Popen(
                list(program.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **program.environment, **ours},
                process_group=0,
            )
        return _Child(program, process, identify_process(process.pid), time.monotonic())

    def _tend(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                program, started = self._wanted.get(timeout=0.1)
                self._begin(program, started)
            with self._lock:
                for name, child in list(self._children.items()):
                    if child.process.poll() is not None and child.program.restart:
                        self._revive(name, child)

    def _begin(self, program: Program, started: Future[None]) -> None:
        try:
            with self._lock:
                self._children[program.name] = self._spawn(program)
                self._write_record()
        except OSError as error:
            started.set_exception(ProgramFailed(f"{program.name} cannot be started: {error}"))
        else:
            started.set_result(None)

    def _revive(self, name: str, child: _Child) -> None:
        now = time.monotonic()
        if child.again_at is None:
            _kill_group(child.mark.pid)  # children of a dead worker would go on taking messages (F35)
            child.deaths = 1 if now - child.started > SETTLED_AFTER else child.deaths + 1
            delay = 0.0 if child.deaths == 1 else min(INITIAL_DELAY * 2 ** (child.deaths - 2), MAX_DELAY)
            child.again_at = now + delay
            after = f" in {delay:.1f} s" if delay else ""
            self._say(f"{name} ended with {child.process.returncode}: starting it again{after}")
        if now >= child.again_at:
            fresh = self._spawn(child.program)
            fresh.deaths = child.deaths
            self._children[name] = fresh
            self.restarts += 1
            self._write_record()

    def _write_record(self) -> None:
        programs = {
            name: {"pid": child.mark.pid, "started": child.mark.started} for name, child in self._children.items()
        }
        if programs:
            write_json(self._record, {"token": self._token, "programs": programs})
        else:
            self._record.unlink(missing_ok=True)


def with_parent_death(words: Sequence[str], *, death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `celery WORDS` (or our own command) and ends with this process, however this process ends."""
    return [sys.executable, "-m", "workers.local.parent_death", str(os.getpid()), str(int(death_signal)), *words]


def kill_leftover_groups(record: Path) -> int:
    """End what a killed supervisor left behind; how many groups there were.

    A group's id may have been given out again meanwhile, so only processes that carry that supervisor's token in
    their environment are touched (where there is no /proc: only a head with its recorded start time).
    """
    known = read_json(record)
    token, programs = str(known.get("token", "")), known.get("programs", {})
    groups = {int(entry["pid"]): _members(int(entry["pid"]), token) for entry in programs.values()}
    groups = {group: members for group, members in groups.items() if members}
    left = [member for members in groups.values() for member in members]
    for number, grace in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        for group in groups:
            _signal_group(group, number)
        if wait_until(lambda: not any(alive(member) for member in left), grace):
            break
    record.unlink(missing_ok=True)
    return len(groups)


def _end(children: Sequence[_Child]) -> None:
    """All of them side by side, each by its own way out; then their groups, so that no grandchild stays."""
    for step in range(max((len(child.program.ending) for child in children), default=0)):
        waiting = [child for child in children if child.process.poll() is None and step < len(child.program.ending)]
        for child in waiting:
            _signal_leader(child, child.program.ending[step][0])
        grace = max((child.program.ending[step][1] for child in waiting), default=0.0)
        wait_until(lambda running=waiting: all(child.process.poll() is not None for child in running), grace)  # type: ignore[misc]
    for child in children:
        _kill_group(child.mark.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(5)


def _signal_leader(child: _Child, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        _kill_group(child.mark.pid)
    else:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def _kill_group(group: int) -> None:
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _members(group: int, token: str) -> list[ProcessIdentity]:
    """The living processes of a group, if one of them carries the token."""
    if not Path("/proc/self").exists():
        return [ProcessIdentity(group)] if alive(ProcessIdentity(group)) else []
    members, known = [], False
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ProcessLookupError):
                stat = (entry / "stat").read_text(errors="replace")
                fields = stat[stat.rfind(")") + 2 :].split()
                if int(fields[2]) == group and fields[0] not in "ZX":
                    members.append(ProcessIdentity(int(entry.name), int(fields[19])))
                    known = known or f"{TOKEN_ENV}={token}".encode() in (entry / "environ").read_bytes()
    return members if known else []
