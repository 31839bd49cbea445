"""How are all orders, bills and promises kept in one file, and how does a new server go on from it?

PostgreSQL's own `pg_dump` and `pg_restore` do the work; here they are found, in the version that fits the server, given the
address without showing the password to anybody, and what they cannot know is seen to: roles belong to a server and are in no dump,
a restore goes into an empty database or nowhere, and the feed counts on from where it was (models/feed.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, make_url, text

from workers.servers.binaries import NoServerFound, postgres_folder, version_of


class CannotBackUp(RuntimeError):
    """What is in the way and what would help, for the person at the keyboard."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: rows by table, and by how many transactions the feed had to be moved on."""

    orders: int
    events: int
    moved_on: int


def back_up(database_url: str, file: Path) -> int:
    """Write the whole schema into `file`, as one moment; gives its bytes.  Workers may go on meanwhile."""
    programs = _programs(database_url)
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # addresses and private words are in it
    try:
        _run([programs / "pg_dump", "--format=custom", "--schema=unwind", "--no-owner", f"--file={part}"], database_url)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(database_url: str, file: Path) -> Restored:
    """Bring `file` into an empty database, whole or not at all, and up to this code's schema.  Raises CannotBackUp."""
    from models import feed, guards, migrations

    if not file.is_file():
        raise CannotBackUp(f"There is no file {file}.")
    programs = _programs(database_url)
    engine = create_engine(database_url)
    try:
        with engine.begin() as conn:
            if conn.execute(text("SELECT to_regnamespace('unwind') IS NOT NULL")).scalar():
                raise CannotBackUp(
                    "The database holds a schema `unwind` already. A restore goes into an empty database only: make one "
                    "(CREATE DATABASE ...) and let DATABASE_URL name it."
                )
            for statement in guards.roles():
                conn.execute(text(statement))
        options = [
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            f"--dbname={make_url(database_url).database}",
        ]
        _run([programs / "pg_restore", *options, str(file)], database_url)
        with engine.begin() as conn:
            moved_on = feed.go_on_counting(conn)
        migrations.upgrade(database_url)
        with engine.begin() as conn:
            return Restored(_count(conn, "orders"), _count(conn, "events"), moved_on)
    finally:
        engine.dispose()


def _count(conn: Connection, table: str) -> int:
    count: int = conn.execute(text(f"SELECT count(*) FROM unwind.{table}")).scalar_one()  # noqa: S608 - a name of ours
    return count


def _programs(database_url: str) -> Path:
    """The folder of the client programs of the server's own version, else of the next newer one: older ones refuse."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as conn:
            server = int(conn.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
    finally:
        engine.dispose()
    found = {version[0]: folder for folder in _folders() if (version := version_of(folder / "pg_dump"))}
    fitting = [version for version in sorted(found) if version >= server]
    if not fitting:
        has = f"only version {', '.join(map(str, sorted(found)))}" if found else "none"
        raise CannotBackUp(
            f"The server is PostgreSQL {server}, and of pg_dump and pg_restore there is {has} here. Install the package "
            f"postgresql-client-{server}."
        )
    return found[fitting[0]]


def _folders() -> Iterator[Path]:
    """Where client programs may be; of two of one version the later wins, which is the one on the path."""
    with contextlib.suppress(NoServerFound):
        yield postgres_folder()
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if found := shutil.which("pg_dump"):
        yield Path(found).parent


def _run(command: list[str | Path], database_url: str) -> None:
    """Run a client program; the address goes through its environment, for everybody on the host sees a command line."""
    url = make_url(database_url)
    address = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    environment = os.environ | {name: str(value) for name, value in address.items() if value is not None}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode != 0:
        said = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-8:])
        raise CannotBackUp(f"{Path(command[0]).name} did not succeed:\n{said}")
