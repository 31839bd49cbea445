"""Functions that start the embedded servers, or join running ones.

    with embedded_servers(Path(".unwind")) as urls:
        engine = create_engine(urls.database_url)

All processes that use one data directory share its servers. The first process starts them; the last one to leave stops
them and waits until they have ended.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import workers
from workers.embedded.daemon import DAEMON_START_SECONDS
from workers.embedded.data_dir import (
    RUNNING_FILE,
    FileLock,
    ensure_servers_dir,
    log_tail,
    passwords,
    read_json,
    servers_dir,
    start_process,
)
from workers.embedded.processes import ProcessIdentity, is_alive, terminate
from workers.embedded.servers import ADMIN, DATABASE, OWNER, ServerStartError

DAEMON_TIMEOUT = DAEMON_START_SECONDS + 30.0  # for another process that is starting or stopping the same servers


@dataclass(frozen=True, repr=False)
class ServerUrls:
    """The URLs of the servers. They contain passwords: never log them (the repr hides them).

    `database_url` logs in as the owner of the tables. `admin_url` logs in as PostgreSQL's superuser; no part of the
    product uses it.
    """

    database_url: str
    broker_url: str
    result_backend: str
    admin_url: str


@dataclass(frozen=True)
class RunningServers:
    daemon: ProcessIdentity
    postgres: ProcessIdentity
    valkey: ProcessIdentity
    postgres_port: int
    valkey_port: int


@contextlib.contextmanager
def embedded_servers(
    data_dir: Path,
    durable: bool = True,
    *,
    postgres_settings: Mapping[str, str] | None = None,
    valkey_settings: Mapping[str, str] | None = None,
) -> Iterator[ServerUrls]:
    """Provide PostgreSQL and Valkey on loopback, with their data in `data_dir`; a new directory takes about one second.

    `durable=False` is for tests: nothing is flushed to disk. `durable` and the settings apply only if this call starts
    the servers; servers that already run are used unchanged.
    Raises ServerStartError, ServerBinaryNotFound or DataDirNotAccessible.
    """
    folder = ensure_servers_dir(data_dir)
    options = {"durable": durable, "postgres": dict(postgres_settings or {}), "valkey": dict(valkey_settings or {})}
    with contextlib.closing(FileLock(folder / "in-use.lock")) as in_use:
        _join_servers(folder, in_use, options)
        try:
            yield _server_urls(folder)
        finally:
            _leave_servers(folder, in_use)


@cache
def embedded_servers_until_exit(data_dir: Path) -> ServerUrls:
    servers = contextlib.ExitStack()
    atexit.register(servers.close)
    return servers.enter_context(embedded_servers(data_dir))


def running_servers(data_dir: Path) -> RunningServers | None:
    record = read_json(servers_dir(data_dir) / RUNNING_FILE)
    try:
        identities = {name: ProcessIdentity.from_json(record[name]) for name in ("daemon", "postgres", "valkey")}
        running = RunningServers(
            **identities, postgres_port=record["postgres"]["port"], valkey_port=record["valkey"]["port"]
        )
    except (KeyError, TypeError, AttributeError):  # none, or of another release
        return None
    return running if is_alive(running.daemon) else None


def running_server_urls(data_dir: Path) -> ServerUrls | None:
    return None if running_servers(data_dir) is None else _server_urls(servers_dir(data_dir))


def _join_servers(folder: Path, in_use: FileLock, options: Mapping[str, object]) -> None:
    starting, daemon = FileLock(folder / "starting.lock"), FileLock(folder / "daemon.lock")
    with contextlib.closing(starting), contextlib.closing(daemon):
        if not starting.acquire(seconds=DAEMON_TIMEOUT):
            raise ServerStartError(
                f"another process has been starting the servers of {folder} for {DAEMON_TIMEOUT:.0f} s"
            )
        # A daemon that is stopping holds the exclusive lock: wait for it, its servers can no longer be joined.
        if not in_use.acquire(shared=True, seconds=DAEMON_TIMEOUT):
            raise ServerStartError(f"the servers of {folder} are being stopped and have not ended")
        is_daemon_missing = daemon.acquire()
        daemon.close()
        if is_daemon_missing or not (folder / RUNNING_FILE).exists():
            _start_daemon(folder, options)


def _start_daemon(folder: Path, options: Mapping[str, object]) -> None:
    checkout = str(Path(workers.__file__).resolve().parents[1])
    process = start_process(
        [sys.executable, "-m", "workers.embedded.daemon", str(folder)],
        folder / "daemon.log",
        {**os.environ, "PYTHONPATH": checkout, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        start_new_session=True,  # Ctrl-C in the terminal must reach only the command, which then leaves cleanly
    )
    output, _ = process.communicate(json.dumps(options).encode() + b"\n")
    answer = (
        json.loads(output) if output.strip() else {"error": f"its daemon ended:\n{log_tail(folder / 'daemon.log')}"}
    )
    if "ready" not in answer:
        raise ServerStartError(f"The embedded servers did not start: {answer['error']}")


def _leave_servers(folder: Path, in_use: FileLock) -> None:
    # The last user stops the servers and waits, so that the folder can be removed at once.
    if in_use.acquire():  # fails, and releases our shared lock, if others use them or the daemon is stopping
        running = read_json(folder / RUNNING_FILE).get("daemon", {})
        terminate(ProcessIdentity.from_json(running), (signal.SIGTERM, 40.0))
        with contextlib.closing(FileLock(folder / "daemon.lock")) as daemon:
            daemon.acquire(seconds=5.0)


def _server_urls(folder: Path) -> ServerUrls:
    secret, record = passwords(folder), read_json(folder / RUNNING_FILE)
    port = record["postgres"]["port"]
    broker = f"redis://:{secret['valkey']}@127.0.0.1:{record['valkey']['port']}"
    return ServerUrls(
        database_url=f"postgresql+psycopg://{OWNER}:{secret['postgres']}@127.0.0.1:{port}/{DATABASE}",
        admin_url=f"postgresql+psycopg://{ADMIN}:{secret['postgres_admin']}@127.0.0.1:{port}/{DATABASE}",
        broker_url=f"{broker}/0",
        result_backend=f"{broker}/1",
    )
