"""Local processes with the interface that pytest-celery expects of containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT = 40.0


class ProcessNode:
    """A program as pytest-celery's wrappers want a container: it can be killed, started again and read."""

    attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}, "HostConfig": {"PortBindings": {}}}  # noqa: RUF012
    labels: dict[str, str] = {}  # noqa: RUF012

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, cwd: Path = CHECKOUT
    ) -> None:
        self.id = self.name = name
        self._cwd = cwd
        self._command = [sys.executable, "-m", *command]
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "C_FORCE_ROOT": "1", **environment}
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the program as the head of a process group."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The head's process id, which is the group's too."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> str:
        """`running` or `exited`."""
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    def reload(self) -> None:
        """Nothing to ask: the status is always fresh."""

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal to the whole group; after SIGKILL wait until it is gone."""
        number = _number(signal)
        os.killpg(self.pid, number)
        if number == _number("SIGKILL"):
            self.wait()

    def restart(self, timeout: float = 10) -> None:
        """End it if it runs, and start it again."""
        self.remove(timeout)
        self.start()

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Until it has ended."""
        assert self._process is not None
        return self._process.wait(timeout)

    def logs(self, **_: Any) -> bytes:
        """Everything it has said so far."""
        return self._log.read_bytes()

    def exec_run(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        """There is no inside to run anything in."""
        return 1, b""

    def remove(self, timeout: float = TIMEOUT, **_: Any) -> None:
        """End it in good order, or by force."""
        if self.status != "running":
            return
        os.killpg(self.pid, signal.SIGTERM)
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()


class UnwindWorker(CeleryWorkerContainer):
    """Our worker, as anybody would start it."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """The words after `python -m`."""
        queues = "commands,submissions,consequences,notices,sweeps"
        words = ["celery", "-A", "workers.app", "worker", "-Q", queues, "-c", "2", "-n", "e2e@%h", "-l", "INFO"]
        return [*words, "--without-gossip", "--without-mingle", *args]

    @property
    def ready_prompt(self) -> str:
        """What it says when it takes messages."""
        return " ready."

    def teardown(self) -> None:
        """End the process."""
        self._container.remove()


class RunningServer(RedisContainer):
    """The suite's Valkey, which other fixtures start and end."""

    def __init__(self, url: str) -> None:
        super().__init__(_Standing(url))
        self._url = url

    @property
    def celeryconfig(self) -> dict[str, str]:
        """The same place seen from everywhere."""
        return {"url": self._url, "host_url": self._url, "hostname": "127.0.0.1", "vhost": self._url.rpartition("/")[2]}

    @property
    def ready_prompt(self) -> None:
        """It is ready."""
        return


class _Standing:
    """A server that is there."""

    attrs = ProcessNode.attrs
    status = "running"

    def __init__(self, url: str) -> None:
        self.id = self.name = url.rpartition("@")[2]

    def reload(self) -> None:
        """Nothing to ask."""

    def logs(self, **_: Any) -> bytes:
        """Its log is elsewhere."""
        return b""


def wait_until(holds: Callable[[], Any], seconds: float = TIMEOUT, *, what: str = "it") -> Any:
    """Ask until the answer is yes; gives the answer. Fails with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)  # there is no event across three processes and a database to wait for
    return answer


def _number(which: str | int) -> int:
    return signal.Signals[which] if isinstance(which, str) else which
