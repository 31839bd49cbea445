"""The embedded PostgreSQL and Valkey: their settings and logins; creating, starting and stopping them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from workers.embedded.binaries import find_valkey_server
from workers.embedded.data_dir import RUNNING_FILE, log_tail, read_json, start_process, write_file, write_json
from workers.embedded.processes import (
    ProcessIdentity,
    end_orphan,
    identify_process,
    is_alive,
    read_if_possible,
    stop_child,
)
from workers.embedded.program_copy import programs_for
from workers.embedded.run_as import RunAs, choose_run_as, chown_tree

OWNER = "unwind_owner"
"""The working login: owns the database and its contents, may create databases (for replays), and is no superuser."""
ADMIN = "unwind_admin"
"""The superuser. Only the start of the servers and administrators use it."""
DATABASE = "unwind"
EMBEDDED_ROLES = (
    *("unwind_app", "unwind_submit", "unwind_reader", "unwind_web"),
    *("unwind_submit_definer", "unwind_feed_definer"),
)
"""The roles of `models.ddl.grants.ROLES`, which the working login may not create.

They are repeated here because the daemon imports no third-party packages, to start fast.
"""

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP only: a socket in a shared folder would be a second way in
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",  # a sweep over a million rows should not force checkpoints
    "TimeZone": "UTC",  # in zones with summer time, '7 days' is not always 168 hours
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_parameter_max_length": "0",  # keeps comments and addresses out of the log
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",  # DETAIL lines would quote rows
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "jit": "off",  # all statements are short: compiling them costs more than it saves
}
# Test data is deleted after the test, so nothing needs to reach the disk.
THROWAWAY_POSTGRES_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}

VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "databases": "64",  # the product uses two; each parallel test process uses a pair
    "maxmemory-policy": "noeviction",  # it holds queues, so no key may be evicted
    "tcp-keepalive": "60",
    "save": '""',  # the append-only file suffices; a snapshot would cost a fork
    "daemonize": "no",
    "appendfsync": "everysec",  # `always` would cost two thirds of the push rate
}
SERVER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class ServerStartError(RuntimeError):
    pass


class EmbeddedServer:
    name: ClassVar[str]
    title: ClassVar[str]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """The first is also what the kernel sends when the daemon dies."""
    identity = RunAs()

    def __init__(self, folder: Path) -> None:
        self.data = folder / self.name
        self.log = folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise ServerStartError(f"{self.title} ended while starting:\n{log_tail(self.log)}")
        return self.answers(self.process)

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        raise NotImplementedError

    def _run(
        self, command: Sequence[str | Path], standard_input: bytes = b"", *, folder: str | Path = "/"
    ) -> subprocess.Popen[bytes]:
        # A function before exec is safe: the daemon has no other threads.
        become = self.identity.becoming(os.getpid(), self.stop_signals[0][0])
        process = start_process(
            command, self.log, SERVER_ENVIRONMENT, stdin=subprocess.PIPE, cwd=folder, preexec_fn=become
        )
        assert process.stdin is not None
        process.stdin.write(standard_input)
        process.stdin.close()
        return process

    def stop(self) -> None:
        if self.process is not None:
            stop_child(self.process, *self.stop_signals)
            self.process = None


class Postgres(EmbeddedServer):
    """One cluster in one folder, served by one process at a time."""

    name, title = "postgres", "PostgreSQL"
    stop_signals = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

    def __init__(
        self, folder: Path, passwords: Mapping[str, str], *, durable: bool, settings: Mapping[str, str]
    ) -> None:
        super().__init__(folder)
        self.logins = folder / "postgres.logins.json"
        self.passwords = passwords
        self.durable = durable
        self.settings = {**POSTGRES_SETTINGS, **({} if durable else THROWAWAY_POSTGRES_SETTINGS), **settings}
        self.identity = choose_run_as(self.data)
        self.programs = programs_for(self.identity)

    def prepare(self) -> None:
        for leftover in self.data.parent.glob("postgres.new*"):
            shutil.rmtree(leftover)
        if not (self.data / "PG_VERSION").exists():
            self._create()
        chown_tree(self.data, self.identity)
        self._clear_stale_pid_file()
        if read_json(self.logins) != _LOGINS:  # the cluster is of an earlier release
            if self._run_single_user_postgres(self.data, self._login_statements()) != 0:
                raise ServerStartError(f"PostgreSQL's logins could not be created:\n{log_tail(self.log)}")
            write_json(self.logins, _LOGINS)

    def start(self, port: int) -> None:
        options = [argument for name, value in self.settings.items() for argument in ("-c", f"{name}={value}")]
        self.process = self._run([self.programs / "postgres", "-D", self.data, "-p", str(port), *options])

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        lines = read_if_possible(self.data / "postmaster.pid").splitlines()
        return len(lines) >= 8 and lines[0].strip() == str(process.pid) and lines[7].strip() == "ready"

    def _create(self) -> None:
        # Create the cluster and its database in a temporary folder, then rename it, so that it is never incomplete.
        self.logins.unlink(missing_ok=True)
        new_data = self.data.with_name(f"postgres.new-{os.getpid()}")
        secret = self.data.with_name(f"postgres.new-{os.getpid()}.password")
        write_file(secret, f"{self.passwords['postgres_admin']}\n".encode())
        chown_tree(secret, self.identity)
        initdb = [
            f"--pgdata={new_data}",
            f"--username={ADMIN}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-instructions",
            *([] if self.durable else ["--no-sync"]),
        ]
        try:
            status = self._run([self.programs / "initdb", *initdb, "--locale=C.UTF-8"]).wait()
            if status != 0:  # no such locale here; C sorts alike, but upper() handles only ASCII
                shutil.rmtree(new_data, ignore_errors=True)
                status = self._run([self.programs / "initdb", *initdb, "--locale=C"]).wait()
            statements = [*self._login_statements(), f"CREATE DATABASE {DATABASE} OWNER {OWNER}"]
            if status != 0 or self._run_single_user_postgres(new_data, statements) != 0:
                raise ServerStartError(f"PostgreSQL could not create its data folder:\n{log_tail(self.log)}")
            new_data.rename(self.data)
            write_json(self.logins, _LOGINS)
        finally:
            secret.unlink()

    def _login_statements(self) -> list[str]:
        # Statements that create the logins and roles. Each can be repeated, as a kill may interrupt them.
        return [
            *(_CREATE_EMBEDDED_ROLE.format(name=name) for name in (OWNER, *EMBEDDED_ROLES)),
            f"ALTER ROLE {OWNER} LOGIN CREATEDB PASSWORD '{self.passwords['postgres']}'",
            *(f"GRANT {role} TO {OWNER}" for role in (*EMBEDDED_ROLES, "pg_read_all_stats")),
        ]

    def _run_single_user_postgres(self, data: Path, statements: Sequence[str]) -> int:
        # Run statements as superuser in single-user mode, while no server runs; return the exit status.
        options = ["-c", "exit_on_error=on", "-c", "log_checkpoints=off", "-c", "log_min_error_statement=panic"]
        standard_input = "".join(f"{' '.join(statement.split())}\n" for statement in statements).encode()
        options += [] if self.durable else ["-F"]
        command: list[str | Path] = [self.programs / "postgres", "--single", "-D", data, *options, "template1"]
        return self._run(command, standard_input).wait()

    def _clear_stale_pid_file(self) -> None:
        # Remove the pid file of a postmaster that has ended; stop one that outlived its daemon. PostgreSQL refuses to
        # start while any process has the id in the file, even an unrelated one that got the id after a container's
        # restart.
        pid_file = self.data / "postmaster.pid"
        lines = read_if_possible(pid_file).splitlines()
        postmaster = identify_process(int(lines[0])) if lines and lines[0].strip().isdigit() else ProcessIdentity(0)
        if is_alive(postmaster) and str(self.data) in read_if_possible(Path(f"/proc/{postmaster.pid}/cmdline")):
            end_orphan(postmaster, (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        pid_file.unlink(missing_ok=True)


_LOGINS = {"owner": OWNER, "admin": ADMIN, "roles": list(EMBEDDED_ROLES)}
"""The contents of `postgres.logins.json` when a cluster's logins are up to date."""

_CREATE_EMBEDDED_ROLE = """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name} NOLOGIN; END IF;
    END $$
"""


class Valkey(EmbeddedServer):
    name, title = "valkey", "Valkey"
    stop_signals = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, password: str, *, durable: bool, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.password = password
        self.settings = {**VALKEY_SETTINGS, "appendonly": "yes" if durable else "no", **settings}
        self.program = find_valkey_server()
        self.port = 0

    def prepare(self) -> None:
        # Two Valkeys would corrupt the append-only file.
        orphan = ProcessIdentity.from_json(read_json(self.data.with_name(RUNNING_FILE)).get("valkey", {}))
        if orphan.started:
            end_orphan(orphan, (signal.SIGKILL, 5.0))

    def start(self, port: int) -> None:
        # Start the server on `port`. Settings go to standard input, as a command line would reveal the password.
        self.data.mkdir(mode=0o700, exist_ok=True)
        self.port = port
        settings = {**self.settings, "port": str(port), "requirepass": self.password, "dir": f'"{self.data}"'}
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        self.process = self._run([self.program, "-"], os.fsencode(lines), folder=self.data)

    def answers(self, process: subprocess.Popen[bytes]) -> bool:  # noqa: ARG002 - only Valkey knows the password
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
                connection.makefile("rb") as answers,
            ):
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False
