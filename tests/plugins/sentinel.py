"""A primary with a replica, and a sentinel that promotes the replica when the primary is lost."""

# mypy: disable-error-code="no-untyped-call"
# redis-py has no annotations there.

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from workers.embedded.data_dir import free_port
from workers.embedded.processes import parent_death_hook, wait_until
from workers.embedded.valkey import Valkey

PASSWORD = "server-secret"
SENTINEL_PASSWORD = "sentinel-secret"
MAX_SECONDS = 120.0
"""For a failover; a sentinel that is short of processor time does nothing for thirty seconds."""


class SentinelGroup:
    """The servers are `primary` and `replica` as they begin; a failover changes their roles, not the names here."""

    def __init__(self, folder: Path) -> None:
        settings = {"masterauth": PASSWORD, "repl-diskless-sync-delay": "0"}
        self.primary = self._start_server(folder / "first", settings)
        self.replica = self._start_server(
            folder / "second", {**settings, "replicaof": f"127.0.0.1 {self.primary.port}"}
        )
        self.sentinel_port = free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor unwind 127.0.0.1 {self.primary.port} 1\nsentinel auth-pass unwind {PASSWORD}\n"
            "sentinel down-after-milliseconds unwind 1000\nsentinel failover-timeout unwind 10000\n"
        )
        with (folder / "sentinel.log").open("wb") as log:
            self._sentinel = subprocess.Popen(
                [self.primary.program, config, "--sentinel"],
                stdout=log,
                stderr=log,
                preexec_fn=parent_death_hook(os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )
        assert wait_until(lambda: self.watched()["num-slaves"] == "1", MAX_SECONDS)

    def url(self, database: int = 0) -> str:
        """The second sentinel of the list does not exist."""
        return (
            f"sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{self.sentinel_port}/{database}"
            f"?master=unwind&sentinel_password={SENTINEL_PASSWORD}"
        )

    def client(self, server: Valkey) -> redis.Redis:
        return redis.Redis(port=server.port, password=PASSWORD)

    def role(self, server: Valkey) -> str:
        with contextlib.closing(self.client(server)) as client, contextlib.suppress(redis.RedisError):
            return str(client.info("replication")["role"])
        return ""

    def watched(self) -> dict[str, str]:
        """What the sentinel says about the primary; no slaves while it does not answer."""
        with contextlib.closing(redis.Redis(port=self.sentinel_port, password=SENTINEL_PASSWORD)) as client:
            try:
                answer: Any = client.execute_command("SENTINEL MASTER", "unwind", once=True)
            except redis.RedisError:
                return {"num-slaves": "0"}
        return {str(name): str(value) for name, value in answer.items()}

    def fail_over(self) -> None:
        """Change the roles in order, without a loss."""
        with contextlib.closing(self.client(self.primary)) as client:
            client.set("last write", 1)  # WAIT is for the writes of its own connection
            assert wait_until(lambda: client.wait(1, 1000) == 1, MAX_SECONDS)
        assert wait_until(self._request_failover, MAX_SECONDS)
        assert wait_until(
            lambda: self.role(self.replica) == "master" and self.role(self.primary) == "slave", MAX_SECONDS
        )

    def lose_what_follows(self) -> None:
        """Let the replica receive nothing more; `kill_primary` ends that."""
        assert self.replica.process is not None
        self.replica.process.send_signal(signal.SIGSTOP)
        with contextlib.closing(self.client(self.primary)) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def kill_primary(self) -> None:
        assert self.primary.process is not None
        assert self.replica.process is not None
        self.primary.process.kill()
        self.primary.process.wait(30)
        self.replica.process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: self.role(self.replica) == "master", MAX_SECONDS)

    def restart_primary(self) -> None:
        """Start it as the primary that it was; the sentinel makes it a replica."""
        self.primary.start(self.primary.port)
        assert wait_until(self.primary.ready, 30)
        assert wait_until(lambda: self.role(self.primary) == "slave", MAX_SECONDS)

    def stop(self) -> None:
        self._sentinel.kill()
        self._sentinel.wait(30)
        for server in (self.primary, self.replica):
            if server.process is not None:
                server.process.send_signal(signal.SIGCONT)
            server.stop()

    def _request_failover(self) -> bool:
        with contextlib.closing(redis.Redis(port=self.sentinel_port, password=SENTINEL_PASSWORD)) as client:
            try:
                client.execute_command("SENTINEL FAILOVER", "unwind")
            except redis.RedisError:  # it has not examined the replica yet
                return False
        return True

    def _start_server(self, folder: Path, settings: dict[str, str]) -> Valkey:
        folder.mkdir()
        server = Valkey(folder, PASSWORD, durable=False, settings=settings)
        server.start(free_port())
        assert wait_until(server.ready, 30)
        return server


@pytest.fixture
def sentinel_group(tmp_path: Path) -> Iterator[SentinelGroup]:
    folder = tmp_path / "sentinel"
    folder.mkdir()
    group = SentinelGroup(folder)
    yield group
    group.stop()
