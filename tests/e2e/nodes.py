"""Local processes with the interface that pytest-celery expects of containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from schedules.routes import QUEUES

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT = 40.0


class ProcessNode:
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
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> str:
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    def reload(self) -> None:
        """The status is always current."""

    def kill(self, signal: str | int = "SIGKILL") -> None:
        number = _number(signal)
        os.killpg(self.pid, number)
        if number == _number("SIGKILL"):
            self.wait()

    def restart(self, timeout: float = 10) -> None:
        self.remove(timeout)
        self.start()

    def wait(self, timeout: float = TIMEOUT) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def logs(self, **_: Any) -> bytes:
        return self._log.read_bytes()

    def exec_run(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return 1, b""

    def remove(self, timeout: float = TIMEOUT, **_: Any) -> None:
        if self.status != "running":
            return
        os.killpg(self.pid, signal.SIGTERM)
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()


class UnwindWorker(CeleryWorkerContainer):
    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        queues = ",".join(QUEUES)
        words = ["celery", "-A", "workers.app", "worker", "-Q", queues, "-c", "2", "-n", "e2e@%h", "-l", "INFO"]
        return [*words, "--without-gossip", "--without-mingle", *args]

    @property
    def ready_prompt(self) -> str:
        return " ready."

    def teardown(self) -> None:
        self._container.remove()


class RunningServer(RedisContainer):
    def __init__(self, url: str) -> None:
        super().__init__(_RunningServerContainer(url))
        self._url = url

    @property
    def celeryconfig(self) -> dict[str, str]:
        return {"url": self._url, "host_url": self._url, "hostname": "127.0.0.1", "vhost": self._url.rpartition("/")[2]}

    @property
    def ready_prompt(self) -> None:
        return


class _RunningServerContainer:
    attrs = ProcessNode.attrs
    status = "running"

    def __init__(self, url: str) -> None:
        self.id = self.name = url.rpartition("@")[2]

    def reload(self) -> None:
        """Nothing to ask."""

    def logs(self, **_: Any) -> bytes:
        return b""


def _number(signal_name: str | int) -> int:
    return signal.Signals[signal_name] if isinstance(signal_name, str) else signal_name
