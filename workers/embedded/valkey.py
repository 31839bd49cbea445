"""The embedded Valkey: its settings; starting and stopping it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from workers.embedded.binaries import find_valkey_server
from workers.embedded.data_dir import open_log
from workers.embedded.processes import parent_death_hook
from workers.embedded.server import SERVER_ENVIRONMENT, EmbeddedServer

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


class Valkey(EmbeddedServer):
    name, title = "valkey", "Valkey"
    stop_signals = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, password: str, *, durable: bool, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.password = password
        self.settings = {
            **VALKEY_SETTINGS,
            **(DURABLE_VALKEY if durable else THROWAWAY_VALKEY),
            **settings,
        }
        self.program = find_valkey_server()
        self.port = 0

    def start(self, port: int) -> None:
        # Start the server on `port`. Settings go to standard input, as a command line would reveal the password.
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.port = port
        settings = {**self.settings, "port": str(port), "requirepass": self.password, "dir": f'"{self.data}"'}
        with open_log(self.log) as log:
            self.process = subprocess.Popen(
                [self.program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=SERVER_ENVIRONMENT,
                # Safe: the daemon has no other threads.
                preexec_fn=parent_death_hook(os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )
        if self.process.stdin is not None:
            self.process.stdin.write(os.fsencode("".join(f"{name} {value}\n" for name, value in settings.items())))
            self.process.stdin.close()

    def answers(self, process: subprocess.Popen[bytes]) -> bool:  # noqa: ARG002 - only Valkey knows the password
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
