"""How are all orders, bills and promises kept in one file, and how does a new server go on from it?

PostgreSQL's own `pg_dump` and `pg_restore` do the work; here they are found, in the version that fits the server, given the
address without showing the password to anybody, and asked whether they reach the same database as the program does.  What they
cannot know is seen to: roles belong to a server and are in no dump, a restore goes into an empty database or nowhere, and the feed
counts on from where it was (models/feed.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from models.db.database import SessionRefused, make_engine
from models.db.postgres_address import PostgresAddress
from workers.embedded.binaries import ServerBinaryNotFound, find_postgres_bin, program_version


class BackupError(RuntimeError):
    """What is in the way and what would help, for the person at the keyboard."""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What came back: rows by table, and by how many transactions the feed had to be moved on."""

    orders: int
    events: int
    feed_transactions_skipped: int


def back_up(database_url: str, file: Path) -> int:
    """Write the whole schema into `file`, as one moment; gives its bytes.  Workers may go on meanwhile."""
    clients = _clients_of_the_same_database(database_url)
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # addresses and private words are in it
    try:
        clients.run("pg_dump", "--format=custom", "--schema=unwind", "--no-owner", f"--file={part}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(database_url: str, file: Path) -> RestoreResult:
    """Bring `file` into an empty database, whole or not at all, and up to this code's schema.  Raises BackupError."""
    from models import feed, migrations
    from models.ddl import grants

    if not file.is_file():
        raise BackupError(f"There is no file {file}.")
    clients = _clients_of_the_same_database(database_url)
    engine = make_engine(database_url, timeouts=False, application_name="unwind restore")
    try:
        with engine.begin() as conn:
            if conn.execute(text("SELECT to_regnamespace('unwind') IS NOT NULL")).scalar():
                raise BackupError(
                    "The database holds a schema `unwind` already. A restore goes into an empty database only: make one "
                    "(CREATE DATABASE ...) and let DATABASE_URL name it."
                )
            for statement in grants.role_statements():
                conn.execute(text(statement))
        clients.run("pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", str(file))
        with engine.begin() as conn:
            moved_on = feed.advance_feed_base(conn)
        migrations.upgrade(database_url)
        with engine.begin() as conn:
            return RestoreResult(_count(conn, "orders"), _count(conn, "events"), moved_on)
    finally:
        engine.dispose()


def _count(conn: Connection, table: str) -> int:
    count: int = conn.execute(text(f"SELECT count(*) FROM unwind.{table}")).scalar_one()  # noqa: S608 - a name of ours
    return count


@dataclass(frozen=True, slots=True)
class Clients:
    """PostgreSQL's client programs in one folder, all given one address."""

    folder: Path
    address: PostgresAddress

    def run(self, program: str, *words: str) -> str:
        """Run one and return what it printed.  The password goes through its environment: everybody sees a command line."""
        done = subprocess.run(
            [self.folder / program, f"--dbname={self.address.client_conninfo(f'unwind {program}')}", *words],
            env=self.address.client_environment(),
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )
        if done.returncode != 0:
            said = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-8:])
            raise BackupError(f"{program} did not succeed:\n{self.address.without_password(said)}")
        return done.stdout.strip()


_MAY_IDENTIFY = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
_IDENTITY = """
    SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()
"""
_IDENTITY_OF_A_RUN = """
    SELECT extract(epoch FROM pg_postmaster_start_time()), (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Where the first is not allowed: two servers do not start in the same microsecond."""


def _clients_of_the_same_database(database_url: str) -> Clients:
    """The client programs, once they reach the very database that the program itself reaches.  Raises BackupError."""
    address = PostgresAddress.parse(database_url)
    engine = make_engine(database_url, application_name="unwind backup")
    try:
        with engine.connect() as conn:
            server = int(conn.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
            question = _IDENTITY if conn.execute(text(_MAY_IDENTIFY)).scalar() else _IDENTITY_OF_A_RUN
            ours = "|".join(str(value) for value in conn.execute(text(question)).one())
    except OperationalError as problem:
        raise BackupError(f"The database cannot be used: {_sentence(problem.orig, address)}") from None
    finally:
        engine.dispose()
    clients = Clients(_programs(server, address), address)
    if clients.run("psql", "--no-psqlrc", "--no-align", "--tuples-only", f"--command={question}") != ours:
        raise BackupError(
            f"The programs in {clients.folder} reach another database than DATABASE_URL names, so nothing was written. Is one of "
            "them a wrapper that chooses a server by itself?"
        )
    return clients


def _sentence(problem: BaseException | None, address: PostgresAddress) -> str:
    if isinstance(problem, SessionRefused):
        return f"{problem}. {problem.fix}"
    return address.without_password(str(problem).strip())


def _programs(server: int, address: PostgresAddress) -> Path:
    """The folder of the client programs of the server's own version, else of the next newer one: older ones refuse."""
    found = {version[0]: folder for folder in _folders() if (version := program_version(folder / "pg_dump"))}
    oldest = max(server, address.oldest_client)
    fitting = [version for version in sorted(found) if version >= oldest]
    if not fitting:
        has = f"only version {', '.join(map(str, sorted(found)))}" if found else "none"
        raise BackupError(
            f"The server is PostgreSQL {server}, and of pg_dump and pg_restore there is {has} here. Install the package "
            f"postgresql-client-{oldest}."
        )
    return found[fitting[0]]


def _folders() -> Iterator[Path]:
    """Where client programs may be; of two of one version the later wins, which is the one on the path."""
    with contextlib.suppress(ServerBinaryNotFound):
        yield find_postgres_bin()
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("pg_dump")
    if (
        found and Path(found).resolve().name == "pg_dump"
    ):  # not Debian's wrapper, which chooses a server by rules of its own
        yield Path(found).parent
