"""PostgreSQL servers beside the embedded ones: another version, a socket, another encoding, a standby.

Uses Debian's programs where they are installed, else the embedded ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest

from workers.embedded.binaries import find_postgres_bin
from workers.embedded.data_dir import free_port, log_tail
from workers.embedded.processes import wait_until
from workers.embedded.run_as import choose_run_as, chown_tree

USER = "chief"
PASSWORD = "it's 100% @home/#1?&=\\ ü"
CERTIFICATES = Path(__file__).parent / "tls"
FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_wal_size": "256MB"}


def programs() -> Path:
    paths = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return paths[-1].parent if paths else find_postgres_bin()


class PostgresServer:
    """One cluster; TCP needs a password, its socket does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.socket = folder / "socket"
        self.socket.mkdir(mode=0o777, parents=True)
        self.socket.chmod(0o777)
        self.port = free_port()
        self.programs = programs()
        self.identity = choose_run_as(self.data)
        chown_tree(folder, self.identity)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self, encoding: str = "UTF8") -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD + "\n")
        chown_tree(secret, self.identity)
        self.run(
            "initdb", f"--pgdata={self.data}", f"--username={USER}", f"--pwfile={secret}", "--auth-host=scram-sha-256",
            "--auth-local=trust", f"--encoding={encoding}", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip

    def follow(self, primary: PostgresServer) -> None:
        source = f"host={primary.socket} port={primary.port} user={USER}"
        words = ("--write-recovery-conf", "--no-sync", "--checkpoint=fast")
        self.run("pg_basebackup", f"--pgdata={self.data}", f"--dbname={source}", *words)

    def start(self, *, awaited: bool = True, **settings: str) -> None:
        options = {
            **FAST,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.socket),
            "port": str(self.port),
            **settings,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, *words],
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                preexec_fn=self.identity.becoming(os.getpid(), signal.SIGINT),  # noqa: PLW1509 - before any thread of ours matters
            )
        assert not awaited or wait_until(self._ready, 30), log_tail(self.log)

    def stop(self) -> None:
        if self._process is not None:
            for number in (signal.SIGCONT, signal.SIGINT):
                self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """End all its processes at once, as the loss of a machine does."""
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        for process in [*postmaster.children(recursive=True), postmaster]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(30)
        self._process = None

    def promote(self) -> None:
        with self.connect() as conn:
            conn.execute("SELECT pg_promote()")

    def promote_without_connecting(self) -> None:
        """Promote a standby that refuses connections."""
        assert self._process is not None
        (self.data / "promote").touch()
        self._process.send_signal(signal.SIGUSR1)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.socket), port=self.port, user=USER, dbname=database, client_encoding="UTF8", autocommit=True
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{USER}@/{database}?host={self.socket}&port={self.port}"

    def run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [self.programs / program, *words],
            capture_output=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            preexec_fn=self.identity.becoming(os.getpid(), signal.SIGINT),
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, log_tail(self.log)
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False


@contextlib.contextmanager
def new_server() -> Iterator[PostgresServer]:
    """A server with a short path (a socket's has at most 107 characters), stopped and removed afterwards."""
    assert threading.current_thread() is threading.main_thread(), "its end goes with the thread that starts it"
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def new_tls_server() -> Iterator[PostgresServer]:
    """A server that takes TCP connections only with TLS and a client's certificate of the tests' authority."""
    with new_server() as server:
        server.create()
        for name in ("server.pem", "server.key", "ca.pem"):
            shutil.copy(CERTIFICATES / name, server.data / name)
            (server.data / name).chmod(0o600)
        (server.data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
        )
        chown_tree(server.data, server.identity)
        server.start(ssl="on", ssl_cert_file="server.pem", ssl_key_file="server.key", ssl_ca_file="ca.pem")
        with server.connect() as conn:
            conn.execute("CREATE ROLE unwind_app NOLOGIN")
        yield server


@pytest.fixture(scope="session")
def other_server() -> Iterator[PostgresServer]:
    with new_server() as server:
        server.create()
        server.start()
        yield server
