"""The servers' folder: its location, locks, credentials and JSON files, and the choice of free ports.

`servers/` in the data directory holds the credentials, the record of the running processes, three lock files, and one
folder and one log per server. Its mode is 700. Files that root creates in another user's folder are given to that user,
so that a run as root does not lock the owner out.

Locks (flock: the kernel releases them however a process ends):
- `starting.lock`: one process at a time decides whether the servers must be started;
- `in-use.lock`: shared by every process that uses the servers; the daemon stops when it can take it exclusively;
- `daemon.lock`: held by the daemon while it runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from workers.embedded.processes import read_if_possible, wait_until

LOGINS = ("postgres", "postgres_admin", "valkey")
"""The logins in `credentials.json`: PostgreSQL's working login and its administrator, and Valkey's only login."""

RUNNING_FILE = "running.json"
FAILURE_FILE = "failed.json"  # tells `doctor` why the servers failed; the daemon's next start deletes it
MAX_LOG_BYTES = 50_000_000
FIRST_PORT = 10_240
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class DataDirNotAccessible(PermissionError):
    pass


class FileLock:
    """One open lock file. Programs started by this process do not inherit it, so they cannot keep it locked."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _give_to_owner_of(path.parent, self.descriptor)

    def acquire(self, *, shared: bool = False, seconds: float = 0.0) -> bool:
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB

        def attempt() -> bool:
            try:
                fcntl.flock(self.descriptor, how)
            except BlockingIOError:
                return False
            return True

        return wait_until(attempt, seconds)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def servers_dir(data_dir: Path) -> Path:
    return data_dir.resolve() / "servers"


def ensure_servers_dir(data_dir: Path) -> Path:
    folder = servers_dir(data_dir)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(folder)
    except OSError as error:
        raise DataDirNotAccessible(
            f"The data directory {data_dir} cannot be used by this user ({error.strerror or 'no access'}). "
            "Choose another one with --data DIR or UNWIND_DATA."
        ) from error
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_if_possible(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_file(path, json.dumps(value, indent=1).encode())


def write_file(path: Path, content: bytes) -> None:
    # Readable for its owner only, and complete or not there at all.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            _give_to_owner_of(path.parent, file.fileno())
            file.write(content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, readable for its owner only. One that has grown too long is moved aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def start_process(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str], **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process that adds its output to a log. `options` are those of `Popen`."""
    with open_log(log) as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        process: subprocess.Popen[bytes] = subprocess.Popen(command, env=environment, **streams | options)
        return process


def log_tail(log: Path, lines: int = 8) -> str:
    return "\n".join(f"    {line}" for line in read_if_possible(log).splitlines()[-lines:]) or "    (its log is empty)"


def passwords(folder: Path) -> dict[str, str]:
    path = folder / "credentials.json"
    known = read_json(path)
    if not set(LOGINS) <= known.keys():
        known = {**{login: secrets.token_urlsafe(24) for login in LOGINS}, **known}
        write_json(path, known)
    return {name: str(value) for name, value in known.items()}


def free_port(preferred: int = 0, *, exclude: Collection[int] = ()) -> int:
    """Return `preferred`, or a port below those that the kernel may give to an outgoing connection meanwhile."""
    end = int(_EPHEMERAL_PORTS.read_text().split()[0]) if _EPHEMERAL_PORTS.exists() else 32_768
    if end - FIRST_PORT < 1_000:
        end = 1 << 16
    candidates = (FIRST_PORT + secrets.randbelow(end - FIRST_PORT) for _ in range(1_000))
    for candidate in (preferred, *candidates) if preferred else candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError, TypeError, OverflowError):  # `preferred` is from a file
                probe.bind(("127.0.0.1", candidate))
                if candidate not in exclude:
                    return candidate
    raise OSError(errno.EADDRINUSE, f"no free port from {FIRST_PORT} to {end - 1} on 127.0.0.1")


def _give_to_owner_of(folder: Path, descriptor: int) -> None:
    if os.getuid() == 0:
        owner = folder.stat()
        if owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
