"""How is the embedded Valkey started and ended?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from workers.embedded.binaries import find_valkey_server
from workers.embedded.postgres import ServerStartError, log_tail
from workers.embedded.processes import parent_death_hook

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "databases": "64",  # two for a product run; parallel test processes take a pair each
    "maxmemory-policy": "noeviction",  # a queue is not a cache
    "tcp-keepalive": "60",
    "save": '""',  # the append-only file is the copy; a second one costs a fork
    "daemonize": "no",
}
DURABLE_SETTINGS = {"appendonly": "yes", "appendfsync": "everysec"}  # `always` costs two thirds of the push rate
THROWAWAY_SETTINGS = {"appendonly": "no"}


class Valkey:
    """One server in one folder, one process at a time, owned by the process that calls `start`."""

    def __init__(self, folder: Path, password: str, *, durable: bool, settings: Mapping[str, str]) -> None:
        self.data = folder / "valkey"
        self.log = folder / "valkey.log"
        self.password = password
        self.settings = {**SETTINGS, **(DURABLE_SETTINGS if durable else THROWAWAY_SETTINGS), **settings}
        self.program = find_valkey_server()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, port: int) -> None:
        """Start the server; its settings go through standard input, for a command line shows passwords to everybody."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.port = port
        settings = {**self.settings, "port": str(port), "requirepass": self.password, "dir": f'"{self.data}"'}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                preexec_fn=parent_death_hook(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - the daemon starts no thread before
            )
        if self.process.stdin is not None:
            self.process.stdin.write(os.fsencode("".join(f"{name} {value}\n" for name, value in settings.items())))
            self.process.stdin.close()

    def ready(self) -> bool:
        """Whether it answers a ping; not while it still reads its append-only file."""
        if self.process is None or self.process.poll() is not None:
            raise ServerStartError(f"Valkey ended while starting:\n{log_tail(self.log)}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    more = connection.recv(256)
                    if not more:
                        return False
                    answer += more
        except OSError:
            return False
        return answer.startswith(b"+OK") and b"+PONG" in answer

    def stop(self) -> None:
        """TERM writes what is left of the append-only file; KILL after 10 s."""
        if self.process is not None:
            for number, grace in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
                if self.process.poll() is None:
                    self.process.send_signal(number)
                    try:
                        self.process.wait(grace)
                    except subprocess.TimeoutExpired:
                        continue
            self.process = None
