"""Who keeps the embedded servers running, and until when?

A small process of its own, so that the servers belong to no command in particular: `./run up`, `./run show` and a test
run on the same data directory share one pair. It starts both servers, starts one again that dies, and ends them when
the last process that uses them is gone, however that process went (its lock is given back by the kernel). If the
daemon itself is killed, the kernel ends the servers (PR_SET_PDEATHSIG).

Started by `workers.embedded.client` as `python -m workers.embedded.daemon FOLDER`; one JSON object on standard input, one
line of JSON back on standard output. Standard library only: it is up in 50 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from workers.embedded.data_dir import FileLock, free_port, passwords, read_json, write_json
from workers.embedded.postgres import Postgres, ServerStartError
from workers.embedded.processes import ProcessIdentity, identify_process, is_alive, terminate, wait_until
from workers.embedded.valkey import Valkey

START_SECONDS = 60.0  # crash recovery of a large database included
FAILURE = "failed.json"
"""Why the last start came to nothing, for the doctor; gone with the next attempt."""
GIVE_UP_AFTER = 8  # deaths in a row, each within ten seconds of its start: restarting does not fix that


class Daemon:
    """Both servers of one folder."""

    def __init__(self, folder: Path, wishes: dict[str, Any], in_use: FileLock) -> None:
        self.folder = folder
        self.in_use = in_use
        self.record = folder / "running.json"
        (folder / FAILURE).unlink(missing_ok=True)
        secret = passwords(folder)
        durable = bool(wishes.get("durable", True))
        self.postgres = Postgres(folder, secret, durable=durable, settings=wishes.get("postgres", {}))
        self.valkey = Valkey(folder, secret["valkey"], durable=durable, settings=wishes.get("valkey", {}))
        self.ports: dict[str, int] = {
            name: int(port) for name, port in read_json(folder / "ports.json").items() if isinstance(port, int)
        }
        self.enough = threading.Event()

    def start(self) -> None:
        """Both servers up and answering. Valkey starts first: it is ready while PostgreSQL still makes its folder."""
        self._end_orphan()
        self._launch(self.valkey, "valkey")
        self.postgres.prepare()
        self._launch(self.postgres, "postgres")
        self._await(self.valkey, "valkey")
        self._await(self.postgres, "postgres")
        write_json(self.folder / "ports.json", self.ports)
        self._write_record()

    def keep(self) -> None:
        """Until nobody uses the servers, or somebody says stop: start again what dies."""
        deaths = {"postgres": 0, "valkey": 0}
        since = dict.fromkeys(deaths, time.monotonic())
        # Asked ten times a second instead of waited for in a thread: forking servers from a threaded process is unsafe.
        while not self.enough.wait(0.1) and not self.in_use.acquire():
            for name, server in (("postgres", self.postgres), ("valkey", self.valkey)):
                if server.process is None or server.process.poll() is None:
                    continue
                deaths[name] = deaths[name] + 1 if time.monotonic() - since[name] < 10 else 1
                if deaths[name] > GIVE_UP_AFTER:
                    raise ServerStartError(f"{name} ended {GIVE_UP_AFTER} times in a row")
                if self.enough.wait(min(0.05 * 2 ** deaths[name], 5.0)):
                    return
                self._say(f"{name} ended with {server.process.returncode}: starting it again")
                if isinstance(server, Postgres):
                    server.prepare()
                self._launch(server, name)
                self._await(server, name)
                since[name] = time.monotonic()
                self._write_record()

    def stop(self) -> None:
        """Both servers down, the record gone."""
        self.record.unlink(missing_ok=True)
        self.valkey.stop()
        self.postgres.stop()

    def _launch(self, server: Postgres | Valkey, name: str) -> None:
        other = self.ports.get("valkey" if name == "postgres" else "postgres", 0)
        self.ports[name] = free_port(self.ports.get(name, 0), exclude=other)
        server.start(self.ports[name])

    def _await(self, server: Postgres | Valkey, name: str) -> None:
        for attempt in range(10):
            try:
                if wait_until(server.ready, START_SECONDS):
                    return
                raise ServerStartError(f"{name} did not answer within {START_SECONDS:.0f} s")
            except ServerStartError:
                # Somebody took the port in between, or shared memory of a killed predecessor is not free yet.
                if attempt == 9 or self.enough.wait(0.02 * 2**attempt):
                    raise
                self._launch(server, name)

    def _write_record(self) -> None:
        running: dict[str, Any] = {"daemon": _as_json(identify_process(os.getpid()))}
        for name, server in (("postgres", self.postgres), ("valkey", self.valkey)):
            if server.process is not None:
                running[name] = {"port": self.ports[name], **_as_json(identify_process(server.process.pid))}
        write_json(self.record, running)

    def _end_orphan(self) -> None:
        """A Valkey whose daemon was killed has been told to end; two on one append-only file would ruin it."""
        old = read_json(self.record).get("valkey")
        if isinstance(old, dict):
            mark = ProcessIdentity(int(old.get("pid", 0)), int(old.get("started", 0)))
            if mark.started and is_alive(mark) and not wait_until(lambda: not is_alive(mark), 10):
                terminate(mark, (signal.SIGKILL, 5.0))

    @staticmethod
    def _say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


def _as_json(mark: ProcessIdentity) -> dict[str, int]:
    return {"pid": mark.pid, "started": mark.started}


def main(folder: Path) -> int:
    """Keep the servers of `folder`; the exit status is 0 when they were ended in good order."""
    wishes = json.loads(sys.stdin.readline() or "{}")
    if os.fork():  # the starter waits for the first process only and is never the parent of a daemon
        os._exit(0)
    alone, in_use = FileLock(folder / "daemon.lock"), FileLock(folder / "in-use.lock")
    answer: dict[str, Any] = {"ready": True}
    daemon: Daemon | None = None
    try:
        if not alone.acquire(seconds=20):
            raise ServerStartError("another daemon holds this folder")
        daemon = Daemon(folder, wishes, in_use)
        enough = daemon.enough
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: enough.set())
        daemon.start()
    except Exception as error:  # noqa: BLE001 - whatever it was, the one who waits must be told
        answer = {"error": str(error) or repr(error)}
        if daemon is not None:
            write_json(folder / FAILURE, answer)
    with contextlib.suppress(BrokenPipeError):  # the starter was killed: `keep` finds that nobody uses them
        print(json.dumps(answer), flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    if daemon is None:
        return 1
    status = 0 if "ready" in answer else 1
    try:
        if status == 0:
            daemon.keep()
    except ServerStartError as error:
        daemon._say(str(error))
        write_json(folder / FAILURE, {"error": str(error)})
        status = 1
    finally:
        daemon.stop()
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
