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
from functools import partial
from pathlib import Path
from typing import Any

from workers.embedded.data_dir import (
    FAILURE_FILE,
    RUNNING_FILE,
    FileLock,
    free_port,
    passwords,
    read_json,
    write_json,
)
from workers.embedded.processes import (
    ProcessIdentity,
    RestartBackoff,
    StopRequest,
    end_orphan,
    identify_process,
    wait_until,
)
from workers.embedded.servers import Postgres, ServerStartError, Valkey

DAEMON_START_SECONDS = 60.0  # includes crash recovery of a large database
MAX_EARLY_SERVER_DEATHS = 8  # consecutive deaths, each soon after its start: another restart will not help


class Daemon:
    def __init__(self, folder: Path, options: dict[str, Any], in_use: FileLock) -> None:
        self.folder = folder
        self.in_use = in_use
        self.record = folder / RUNNING_FILE
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        secret = passwords(folder)
        durable = bool(options.get("durable", True))
        self.servers: list[Postgres | Valkey] = [
            Valkey(folder, secret["valkey"], durable=durable, settings=options.get("valkey", {})),
            Postgres(folder, secret, durable=durable, settings=options.get("postgres", {})),
        ]
        self.ports: dict[str, int] = read_json(folder / "ports.json")
        self.stop_requested = StopRequest()

    def start(self) -> None:
        # Two Valkeys would corrupt the append-only file.
        orphan = ProcessIdentity.from_json(read_json(self.record).get("valkey") or {})
        if orphan.started:
            end_orphan(orphan, (signal.SIGKILL, 5.0))
        for server in self.servers:
            server.prepare()
            self._launch_server(server)
        for server in self.servers:
            self._await_server(server)
        write_json(self.folder / "ports.json", self.ports)
        self._write_daemon_record()

    def keep(self) -> None:
        backoffs = {server.name: RestartBackoff(initial=0.1, maximum=5.0, early=10.0) for server in self.servers}
        since = dict.fromkeys(backoffs, time.monotonic())
        # Poll ten times a second instead of waiting in a thread: forking servers from a threaded process is unsafe.
        while not self.stop_requested.wait(0.1) and not self.in_use.acquire():
            for server in self.servers:
                if server.process is None or server.process.poll() is None:
                    continue
                delay = backoffs[server.name].next_delay(time.monotonic() - since[server.name])
                if backoffs[server.name].deaths > MAX_EARLY_SERVER_DEATHS:
                    raise ServerStartError(f"{server.name} ended {MAX_EARLY_SERVER_DEATHS} times in a row")
                if self.stop_requested.wait(delay):
                    return
                log_to_stderr(f"{server.name} ended with {server.process.returncode}: restarting it")
                server.prepare()
                self._launch_server(server)
                self._await_server(server)
                since[server.name] = time.monotonic()
                self._write_daemon_record()

    def stop(self) -> None:
        self.record.unlink(missing_ok=True)
        for server in self.servers:
            server.stop()

    def _launch_server(self, server: Postgres | Valkey) -> None:
        others = [port for name, port in self.ports.items() if name != server.name]
        self.ports[server.name] = free_port(self.ports.get(server.name, 0), exclude=others)
        server.start(self.ports[server.name])

    def _await_server(self, server: Postgres | Valkey) -> None:
        for attempt in range(10):
            try:
                if wait_until(server.ready, DAEMON_START_SECONDS):
                    return
                raise ServerStartError(f"{server.name} did not answer within {DAEMON_START_SECONDS:.0f} s")
            except ServerStartError:
                # Another program took the port, or the shared memory of a killed predecessor is not free yet.
                if attempt == 9 or self.stop_requested.wait(0.02 * 2**attempt):
                    raise
                self._launch_server(server)

    def _write_daemon_record(self) -> None:
        running: dict[str, Any] = {"daemon": identify_process(os.getpid()).as_json()}
        for server in self.servers:
            if server.process is not None:
                process = identify_process(server.process.pid)
                running[server.name] = {"port": self.ports[server.name], **process.as_json()}
        write_json(self.record, running)


log_to_stderr = partial(print, file=sys.stderr, flush=True)


def main(folder: Path) -> None:
    options = json.loads(sys.stdin.readline() or "{}")
    if os.fork():  # the client waits only for the first process and is not the daemon's parent
        os._exit(0)
    daemon_lock, in_use = FileLock(folder / "daemon.lock"), FileLock(folder / "in-use.lock")
    answer: dict[str, Any] = {"ready": True}
    daemon: Daemon | None = None
    try:
        if not daemon_lock.acquire(seconds=20):
            raise ServerStartError("another daemon holds this folder")
        daemon = Daemon(folder, options, in_use)
        stop_requested = daemon.stop_requested
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: stop_requested.set())
        daemon.start()
    except Exception as error:  # noqa: BLE001 - the waiting client needs the reason of any failure
        answer = {"error": str(error) or repr(error)}
        if daemon is not None:
            write_json(folder / FAILURE_FILE, answer)
    with contextlib.suppress(BrokenPipeError):  # the client was killed: `keep` finds that no process uses the servers
        print(json.dumps(answer), flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    if daemon is None:
        return
    try:
        if "ready" in answer:
            daemon.keep()
    except ServerStartError as error:
        log_to_stderr(error)
        write_json(folder / FAILURE_FILE, {"error": str(error)})
    finally:
        daemon.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
