"""How is the embedded PostgreSQL made, started and ended?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from workers.servers.identity import hand_over, identity_for
from workers.servers.processes import Mark, alive, command_of, end, mark_of, wait_until
from workers.servers.program_copy import programs_for

OWNER = "unwind_owner"
DATABASE = "unwind"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket in a shared folder would be a second door, without our port's uniqueness
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",  # a million-row sweep should not be a checkpoint test
    "TimeZone": "UTC",  # '7 days' is not 168 hours across a change to summer time in other zones
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_parameter_max_length": "0",  # comments and addresses stay out of the log (P9)
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",  # its DETAIL lines quote rows
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "jit": "off",  # short statements only; compiling them costs more than it saves
}
# Nothing of a test outlives it, so nothing needs to reach the disk.
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}


class ServerDidNotStart(RuntimeError):
    """A server program ended or stayed silent; the message ends with the last lines of its log."""


class Postgres:
    """One cluster in one folder, one process at a time, owned by the process that calls `start`."""

    def __init__(self, folder: Path, password: str, *, durable: bool, settings: Mapping[str, str]) -> None:
        self.data = folder / "postgres"
        self.log = folder / "postgres.log"
        self.password = password
        self.durable = durable
        self.settings = {**SETTINGS, **({} if durable else THROWAWAY_SETTINGS), **settings}
        self.identity = identity_for(self.data)
        self.programs = programs_for(self.identity)
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the cluster if there is none. A killed attempt leaves only a folder that is thrown away here."""
        for left_over in self.data.parent.glob("postgres.new*"):
            shutil.rmtree(left_over)
        if not (self.data / "PG_VERSION").exists():
            self._create()
        hand_over(self.data, self.identity)
        self._clear_stale_pid_file()

    def start(self, port: int) -> None:
        """Start the postmaster; `ready` tells when it takes connections."""
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = self._run([self.programs / "postgres", "-D", self.data, "-p", str(port), *options], log, log)

    def ready(self) -> bool:
        """Whether it takes connections: the eighth line of its own pid file says so, before any client could."""
        if self.process is None or self.process.poll() is not None:
            raise ServerDidNotStart(f"PostgreSQL ended while starting:\n{last_lines(self.log)}")
        lines = _lines(self.data / "postmaster.pid")
        return len(lines) >= 8 and lines[0].strip() == str(self.process.pid) and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Fast shutdown (clients are cut, data is checkpointed); harsher when that takes more than 15 s."""
        if self.process is not None:
            for number, grace in ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if self.process.poll() is None:
                    self.process.send_signal(number)
                    try:
                        self.process.wait(grace)
                    except subprocess.TimeoutExpired:
                        continue
            self.process = None

    def _create(self) -> None:
        """initdb and our database in a folder beside, then one rename: whoever sees the cluster sees all of it."""
        fresh = self.data.with_name(f"postgres.new-{os.getpid()}")
        secret = self.data.with_name(f"postgres.new-{os.getpid()}.password")
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.password + "\n")
        hand_over(secret, self.identity)
        initdb: list[str | Path] = [
            self.programs / "initdb",
            f"--pgdata={fresh}",
            f"--username={OWNER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-instructions",
            *([] if self.durable else ["--no-sync"]),
        ]
        try:
            with self.log.open("ab") as log:
                made = self._run([*initdb, "--locale=C.UTF-8"], log, log).wait()
                if made != 0:  # a machine without that locale: bytes order the same way, only upper() knows less
                    shutil.rmtree(fresh, ignore_errors=True)
                    made = self._run([*initdb, "--locale=C"], log, log).wait()
                if made == 0:
                    fsync: list[str] = [] if self.durable else ["-F"]
                    words = f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n".encode()
                    quiet = ["-c", "log_checkpoints=off"]
                    single: list[str | Path] = [
                        self.programs / "postgres",
                        "--single",
                        "-D",
                        fresh,
                        *fsync,
                        *quiet,
                        "template1",
                    ]
                    made = self._run(single, log, log, words).wait()
            if made != 0:
                raise ServerDidNotStart(f"PostgreSQL could not make its data folder:\n{last_lines(self.log)}")
            fresh.rename(self.data)
        finally:
            secret.unlink()

    def _clear_stale_pid_file(self) -> None:
        """Remove the pid file of a postmaster that is gone (or a zombie); end one that outlived its keeper.

        PostgreSQL itself would take any living process with that id, such as ours after a container's restart, for a
        rival and refuse to start.
        """
        pid_file = self.data / "postmaster.pid"
        lines = _lines(pid_file)
        if not lines:
            pid_file.unlink(missing_ok=True)
            return
        old = mark_of(int(lines[0])) if lines[0].strip().isdigit() else Mark(0)
        ours = alive(old) and str(self.data) in command_of(old.pid)
        # Its keeper was killed, so the kernel has already asked it to end: give it the time, then insist.
        if ours and not wait_until(lambda: not alive(old), 10):
            end(old, (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
        pid_file.unlink(missing_ok=True)

    def _run(
        self, command: Sequence[str | Path], out: IO[bytes], err: IO[bytes], words: bytes | None = None
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if words is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            preexec_fn=self.identity.becoming(os.getpid(), signal.SIGINT),  # noqa: PLW1509 - the keeper starts no thread before
        )
        if words is not None and process.stdin is not None:
            process.stdin.write(words)
            process.stdin.close()
        return process


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log file, for a message to a person."""
    return "\n".join(f"    {line}" for line in _lines(log)[-count:]) or "    (its log is empty)"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
