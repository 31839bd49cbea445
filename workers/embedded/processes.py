"""Functions that identify, watch and terminate processes, and a hook that ends a child with its parent.

A process id alone identifies no process, as ids are reused, for example after a restart of the machine or a container.
A `ProcessIdentity` therefore also holds the kernel's start time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

PR_SET_PDEATHSIG = 1
_PROC = Path("/proc")

libc = ctypes.CDLL(None, use_errno=True)
"""Loaded before any fork: a child must not load it."""


class StopRequest:
    """An event that a signal handler may set. One thread may wait for it.

    `threading.Event.set` takes a lock: a second signal that arrives while the handler of the first holds it, or while
    the main thread begins to wait, would wait for itself. `SimpleQueue.put` may be interrupted by itself.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wakeups: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._wakeups.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        if not self._is_set:
            with contextlib.suppress(Empty):
                self._wakeups.get(timeout=seconds)
        return self._is_set


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, told apart from later ones with the same id. `started` is in ticks since boot, 0 if unknown."""

    pid: int
    started: int = 0

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ProcessIdentity:
        return cls(int(record.get("pid", 0)), int(record.get("started", 0)))

    def as_json(self) -> dict[str, int]:
        return {"pid": self.pid, "started": self.started}


def identify_process(pid: int) -> ProcessIdentity:
    fields = _process_stat(pid)
    return ProcessIdentity(pid, int(fields[19]) if fields else 0)


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that same process still runs. A zombie does not count: it holds no port and no file."""
    fields = _process_stat(identity.pid)
    return bool(fields) and fields[0] not in "ZX" and identity.started in (0, int(fields[19]))


def process_group_members(group: int, marker: str) -> list[ProcessIdentity]:
    """The running processes of a group, if one of them has `marker` (`NAME=value`) in its environment."""
    members, has_marker = [], False
    for entry in _PROC.iterdir():
        fields = _process_stat(int(entry.name)) if entry.name.isdigit() else []
        if fields and int(fields[2]) == group and fields[0] not in "ZX":
            members.append(ProcessIdentity(int(entry.name), int(fields[19])))
            has_marker = has_marker or marker in read_if_possible(entry / "environ")
    return members if has_marker else []


def wait_until(condition: Callable[[], bool], seconds: float, *, step: float = 0.005) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(step)
        step = min(step * 1.3, 0.1)
    return True


def terminate(identity: ProcessIdentity, *signals_and_graces: tuple[signal.Signals, float]) -> None:
    for number, grace in signals_and_graces:
        if is_alive(identity):
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, number)
            wait_until(lambda: not is_alive(identity), grace)


def end_orphan(identity: ProcessIdentity, *signals_and_graces: tuple[signal.Signals, float]) -> None:
    """End a process whose parent was killed. The kernel has signalled it already, so it first gets time to end."""
    if not wait_until(lambda: not is_alive(identity), 10):
        terminate(identity, *signals_and_graces)


@dataclass
class RestartBackoff:
    """The delay before a program that ended is restarted: none at first, then doubled while it keeps ending early."""

    initial: float
    maximum: float
    early: float
    """Seconds; a program that lived longer begins again without a delay."""
    deaths: int = 0
    """Consecutive early deaths."""
    started_at: float = field(default_factory=time.monotonic)

    def next_delay(self) -> float:
        self.deaths = 1 if time.monotonic() - self.started_at > self.early else self.deaths + 1
        return 0.0 if self.deaths == 1 else min(self.initial * 2 ** (self.deaths - 2), self.maximum)


def stop_child(process: subprocess.Popen[bytes], *signals_and_graces: tuple[signal.Signals, float]) -> None:
    for number, grace in signals_and_graces:
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)


def interrupt_on_signals(*numbers: signal.Signals) -> None:
    """Raise KeyboardInterrupt at the first of these signals; further ones must not disturb the shutdown."""

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def parent_death_hook(parent: int, number: signal.Signals) -> Callable[[], None]:
    """Return a function to call between fork and exec: the kernel sends `number` when `parent` dies, even by kill -9.

    Linux ties the signal to the *thread* that forked, so only a thread that lives as long as its process may start
    children this way. Call the function after every change of user, because the change resets the setting.
    """

    def between_fork_and_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl took effect, so the signal will never come
            os._exit(125)

    return between_fork_and_exec


def _process_stat(pid: int) -> list[str]:
    # The fields of /proc/PID/stat from the state on (the name before it may hold blanks); none without the process.
    text = read_if_possible(_PROC / str(pid) / "stat")
    return text[text.rfind(")") + 2 :].split()


def read_if_possible(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
