"""What the embedded servers have in common: each is one process, which ends with the process that starts it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from workers.embedded.data_dir import log_tail
from workers.embedded.processes import stop_child

SERVER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class ServerStartError(RuntimeError):
    pass


class EmbeddedServer:
    name: ClassVar[str]
    title: ClassVar[str]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, folder: Path) -> None:
        self.data = folder / self.name
        self.log = folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the data ready for a start."""

    def start(self, port: int) -> None:
        raise NotImplementedError

    def ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise ServerStartError(f"{self.title} ended while starting:\n{log_tail(self.log)}")
        return self.answers(self.process)

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process is not None:
            stop_child(self.process, *self.stop_signals)
            self.process = None
