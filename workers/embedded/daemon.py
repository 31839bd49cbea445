"""The daemon that starts the embedded servers, restarts them and stops them after their last user.

It is a separate process, so that the servers depend on no single command: `./run up`, `./run show` and a test run on
the same data directory share one pair. It restarts a server that dies. It stops both when the last process that uses
them has ended, in whatever way (the kernel releases that process's lock). If the daemon itself is killed, the kernel
signals the servers to end (PR_SET_PDEATHSIG).

`workers.embedded.client` starts it as `python -m workers.embedded.daemon FOLDER`, writes one JSON object to its
standard input and reads one line of JSON from its standard output. It imports no third-party packages, to start in
50 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.embedded.data_dir import FAILURE_FILE, RUNNING_FILE, FileLock, free_port, passwords, read_json, write_json
from workers.embedded.processes import RestartBackoff, StopRequest, identify_process, wait_until
from workers.embedded.servers import Postgres, ServerStartError, Valkey

DAEMON_START_SECONDS = 600.0  # includes crash recovery: `max_wal_size` to replay, on a slow disk
MAX_EARLY_SERVER_DEATHS = 8  # consecutive deaths, each soon after its start: another restart will not help


class Daemon:
    def __init__(self, folder: Path, options: dict[str, Any], in_use: FileLock) -> None:
        self.folder = folder
        self.in_use = in_use
        self.record = folder / RUNNING_FILE
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        secret, durable = passwords(folder), options["durable"]
        self.servers: list[Postgres | Valkey] = [
            Valkey(folder, secret["valkey"], durable=durable, settings=options["valkey"]),
            Postgres(folder, secret, durable=durable, settings=options["postgres"]),
        ]
        self.ports: dict[str, int] = read_json(folder / "ports.json")
        self.stop_requested = StopRequest()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.stop_requested.set())

    def run(self) -> None:
        """Start the servers, tell the client, and keep them running until their last user has ended."""
        try:
            self._start_servers(self.servers)
            answer_client({"ready": True})
            self._keep_servers()
        except Exception as error:
            if not self._is_unused():
                write_json(self.folder / FAILURE_FILE, {"error": str(error) or repr(error)})
            raise
        finally:
            self.record.unlink(missing_ok=True)
            for server in self.servers:
                server.stop()

    def _keep_servers(self) -> None:
        backoffs = [(server, RestartBackoff(initial=0.1, maximum=5.0, early=10.0)) for server in self.servers]
        # Poll ten times a second instead of waiting in a thread: forking servers from a threaded process is unsafe.
        while not self.stop_requested.wait(0.1) and not self._is_unused():
            for server, backoff in backoffs:
                if server.process is None or server.process.poll() is None:
                    continue
                delay = backoff.next_delay()
                if backoff.deaths > MAX_EARLY_SERVER_DEATHS:
                    raise ServerStartError(f"{server.name} ended {MAX_EARLY_SERVER_DEATHS} times in a row")
                if self.stop_requested.wait(delay):
                    return
                print(f"{server.name} ended with {server.process.returncode}: restarting it", file=sys.stderr)
                self._start_servers([server])
                backoff.started_at = time.monotonic()

    def _is_unused(self) -> bool:
        return self.stop_requested.is_set() or self.in_use.acquire()

    def _start_servers(self, servers: Sequence[Postgres | Valkey]) -> None:
        for server in servers:
            server.prepare()
            self._launch_server(server)
        for server in servers:
            self._await_server(server)
        write_json(self.folder / "ports.json", self.ports)
        running: dict[str, Any] = {"daemon": identify_process(os.getpid()).as_json()}
        for server in self.servers:
            if server.process is not None:
                process = identify_process(server.process.pid)
                running[server.name] = {"port": self.ports[server.name], **process.as_json()}
        write_json(self.record, running)

    def _launch_server(self, server: Postgres | Valkey) -> None:
        others = [port for name, port in self.ports.items() if name != server.name]
        self.ports[server.name] = free_port(self.ports.get(server.name, 0), exclude=others)
        server.start(self.ports[server.name])

    def _await_server(self, server: Postgres | Valkey) -> None:
        for attempt in range(10):
            try:
                is_over = wait_until(lambda: self._is_unused() or server.ready(), DAEMON_START_SECONDS)
                break
            except ServerStartError:
                # Another program took the port, or the shared memory of a killed predecessor is not free yet.
                if attempt == 9 or self.stop_requested.wait(0.02 * 2**attempt):
                    raise
                self._launch_server(server)
        if self._is_unused():
            raise ServerStartError(f"it was stopped while {server.name} was starting")
        if not is_over:
            raise ServerStartError(f"{server.name} did not answer within {DAEMON_START_SECONDS:.0f} s")


def answer_client(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client was killed: the daemon finds that nobody uses the servers
        print(json.dumps(answer), flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)


def main(folder: Path) -> None:
    options = json.loads(sys.stdin.readline())
    if os.fork():  # the client waits only for the first process and is not the daemon's parent
        os._exit(0)
    daemon_lock, in_use = FileLock(folder / "daemon.lock"), FileLock(folder / "in-use.lock")
    try:
        if not daemon_lock.acquire(seconds=20):
            raise ServerStartError("another daemon holds this folder")
        Daemon(folder, options, in_use).run()
    except Exception as error:  # noqa: BLE001 - the waiting client needs the reason of any failure
        answer_client({"error": str(error) or repr(error)})
        traceback.print_exc()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
