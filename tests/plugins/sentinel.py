"""A primary with a replica, and a sentinel that promotes the replica when the primary is lost."""

# mypy: disable-error-code="no-untyped-call"
# redis-py has no annotations there.

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis

from workers.embedded.data_dir import free_port
from workers.embedded.processes import parent_death_hook, wait_until
from workers.embedded.servers import Valkey

PASSWORD = "server-secret"
SENTINEL_PASSWORD = "sentinel-secret"
MAX_SECONDS = 120.0
"""For a failover; a sentinel that is short of processor time does nothing for thirty seconds."""


class SentinelGroup:
    """The servers are `primary` and `replica` as they begin; a failover changes their roles, not the names here."""

    def __init__(self, folder: Path, failover_timeout_ms: int = 10_000) -> None:
        self._starter = ThreadPoolExecutor(1, "sentinel group")  # servers end with the thread that started them
        settings = {"masterauth": PASSWORD, "repl-diskless-sync-delay": "0"}
        self.primary = self._start_server(folder / "first", settings)
        self.replica = self._start_server(
            folder / "second", {**settings, "replicaof": f"127.0.0.1 {self.primary.port}"}
        )
        self.sentinel_port = free_port()
        self._log = folder / "sentinel.log"
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor unwind 127.0.0.1 {self.primary.port} 1\nsentinel auth-pass unwind {PASSWORD}\n"
            f"sentinel down-after-milliseconds unwind 1000\nsentinel failover-timeout unwind {failover_timeout_ms}\n"
        )
        self._sentinel = self._starter.submit(self._start_sentinel, config).result()
        _await(lambda: self.watched()["num-slaves"] == "1")

    def url(self, database: int = 0) -> str:
        """The second sentinel of the list does not exist."""
        return (
            f"sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{self.sentinel_port}/{database}"
            f"?master=unwind&sentinel_password={SENTINEL_PASSWORD}"
        )

    def client(self, server: Valkey) -> redis.Redis:
        return redis.Redis(port=server.port, password=PASSWORD, socket_timeout=5)

    def celery_settings(self) -> dict[str, Any]:
        """The settings of a Celery application that has kombu's transport and reads no results."""
        return {
            "broker_url": f"sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel_port}/0",
            "broker_transport_options": {
                "master_name": "unwind",
                "sentinel_kwargs": {"password": SENTINEL_PASSWORD},
            },
        }

    def role(self, server: Valkey) -> str:
        return str(self._replication(server).get("role", ""))

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
            _await(lambda: client.wait(1, 1000) == 1)
        _await(self._request_failover)
        _await(lambda: self.role(self.replica) == "master" and self.role(self.primary) == "slave")

    def wait_until_replicated(self) -> None:
        """Return when either server has become a replica that has caught up; the names follow the roles."""
        _await(self._is_replicated)

    def lose_tail(self, seconds: float) -> int:
        """Fail over to a replica that lacks the writes of these seconds; return their bytes."""
        self.wait_until_replicated()
        try:
            self.lose_what_follows()
            received = self._offset()
            time.sleep(seconds)  # the tail grows meanwhile
            return self._offset() - received
        finally:
            self.kill_primary()
            self._start(self.primary, self.primary.port)

    def demote_paused_primary(self) -> None:
        """Pause the primary until the replica is promoted; then it takes writes again until the sentinel demotes it."""
        self.wait_until_replicated()
        assert self.primary.process is not None
        self.primary.process.send_signal(signal.SIGSTOP)
        try:
            _await(lambda: self.role(self.replica) == "master")
        finally:
            self.primary.process.send_signal(signal.SIGCONT)
        _await(lambda: self.role(self.primary) == "slave")

    def failovers(self) -> int:
        """How often the sentinel has promoted a replica, by itself or by request."""
        return self._log.read_text().count(" +switch-master ")

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
        _await(lambda: self.role(self.replica) == "master")

    def stop(self) -> None:
        self._sentinel.kill()
        self._sentinel.wait(30)
        for server in (self.primary, self.replica):
            if server.process is not None:
                server.process.send_signal(signal.SIGCONT)
            server.stop()
        self._starter.shutdown()

    def _replication(self, server: Valkey) -> dict[str, Any]:
        with contextlib.closing(self.client(server)) as client, contextlib.suppress(redis.RedisError):
            return dict(client.info("replication"))
        return {}

    def _offset(self) -> int:
        _await(lambda: "master_repl_offset" in self._replication(self.primary))
        return int(self._replication(self.primary)["master_repl_offset"])

    def _is_replicated(self) -> bool:
        if self.watched().get("port") == str(self.replica.port):
            self.primary, self.replica = self.replica, self.primary
        primary, replica = self._replication(self.primary), self._replication(self.replica)
        return primary.get("role") == "master" and replica.get("master_link_status") == "up"

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
        self._start(server, free_port())
        return server

    def _start(self, server: Valkey, port: int) -> None:
        self._starter.submit(server.start, port).result()
        assert wait_until(server.ready, 30)

    def _start_sentinel(self, config: Path) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [self.primary.program, config, "--sentinel"],
                stdout=log,
                stderr=log,
                preexec_fn=parent_death_hook(os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )


def _await(condition: Callable[[], bool]) -> None:
    if not wait_until(condition, MAX_SECONDS):
        raise TimeoutError
