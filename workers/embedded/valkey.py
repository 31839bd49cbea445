"""The embedded Valkey: its settings; starting and stopping it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from workers.embedded.binaries import find_valkey_server
from workers.embedded.postgres import ServerStartError, log_tail
from workers.embedded.processes import parent_death_hook, stop_child

VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "databases": "64",  # the product uses two; each parallel test process uses a pair
    "maxmemory-policy": "noeviction",  # it holds queues, so no key may be evicted
    "tcp-keepalive": "60",
    "save": '""',  # the append-only file suffices; a snapshot would cost a fork
    "daemonize": "no",
}
DURABLE_VALKEY = {
    "appendonly": "yes",
    "appendfsync": "everysec",
}  # `always` would cost two thirds of the push rate
THROWAWAY_VALKEY = {"appendonly": "no"}


class Valkey:
    def __init__(self, folder: Path, password: str, *, durable: bool, settings: Mapping[str, str]) -> None:
        self.data = folder / "valkey"
        self.log = folder / "valkey.log"
        self.password = password
        self.settings = {
            **VALKEY_SETTINGS,
            **(DURABLE_VALKEY if durable else THROWAWAY_VALKEY),
            **settings,
        }
        self.program = find_valkey_server()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, port: int) -> None:
        # Start the server on `port`. Settings go to standard input, as a command line would reveal the password.
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
                # Safe: the daemon has no other threads.
                preexec_fn=parent_death_hook(os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )
        if self.process.stdin is not None:
            self.process.stdin.write(os.fsencode("".join(f"{name} {value}\n" for name, value in settings.items())))
            self.process.stdin.close()

    def ready(self) -> bool:
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
        if self.process is not None:
            stop_child(self.process, (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
            self.process = None
