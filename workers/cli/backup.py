"""The `backup` and `restore` commands: the whole schema in one file; a restore ends with a check of every invariant.

`pg_dump` and `pg_restore` do the work.  This module finds them in the version that fits the server, passes the address
without showing the password, and checks that they reach the same database as the program.  It also creates the roles,
which no dump contains, refuses a database that is not empty, and continues the feed where it was (models/feed.py).

./run backup unwind.dump
./run restore unwind.dump
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from sqlalchemy import NullPool, func, select, text
from sqlalchemy.exc import OperationalError

from models import feed
from models.db.database import DatabaseClock, make_engine
from models.db.driver import is_pooled
from models.db.postgres_address import PostgresAddress
from models.db.session_settings import PooledSessionRefused, SessionSettingsRefused, set_local
from models.ddl import grants
from models.events import EventRow
from models.integrity import invariants, month_audit
from models.monitoring.server_info import SERVER_IDENTITY, fact
from models.orders import OrderRow
from workers.cli.terminal_text import echo
from workers.embedded.binaries import ServerBinaryNotFound, find_postgres_bin, program_version
from workers.local.run_command import RUN_COMMAND
from workers.migrate import migrate
from workers.settings import load_settings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace FILE when it exists.")
def backup(file: Path, replace: bool) -> None:
    """Write all orders, bills, outbox messages and answers to FILE as one snapshot, while workers go on.

    FILE contains addresses and private comments, so only you can read it. Redis needs no backup: the outbox is in
    PostgreSQL.
    """
    if file.exists() and not replace:
        raise click.ClickException(f"{file} exists. Use --replace to replace it.")
    with load_settings().with_servers_running() as settings:
        assert settings.migration_url is not None
        size = write_backup(settings.migration_url.get_secret_value(), file)
    echo(f"{file}: {size / 1e6:,.1f} MB. Restore it into an empty database with `{RUN_COMMAND} restore {file}`.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
def restore(file: Path) -> None:
    """Restore FILE into an empty database, completely or not at all, and check every invariant.

    The database is that of DATABASE_URL, or of a new --data directory. Start the workers afterwards, on an empty Redis:
    the relay republishes whatever is unfinished.
    """
    with load_settings().with_servers_running() as settings:
        assert settings.migration_url is not None
        url = settings.migration_url.get_secret_value()
        skipped = restore_backup(url, file)
        with make_engine(url, poolclass=NullPool).begin() as conn:
            set_local(conn, statement_timeout="0")
            now = DatabaseClock().now(conn)
            months = month_audit.months_to_audit(conn)
            violations = invariants.query_invariants(conn, now, in_time=False, months=months)
            counts = (select(func.count(key)) for key in (OrderRow.order_id, EventRow.event_id))
            order_count, event_count = map(conn.scalar, counts)
    echo(f"Orders restored: {order_count:,}; events restored: {event_count:,}.")
    if skipped:
        echo(f"Readers of the event feed keep their cursors: its transaction ids continue {skipped:,} higher.")
    if violations:
        raise click.ClickException("Not every invariant holds: ./run audit names what is violated.")
    echo("All invariants hold. Start the workers on an empty Redis: unfinished messages are republished.")


def write_backup(database_url: str, file: Path) -> int:
    run = _backup_clients(database_url)
    part = file.with_name(file.name + ".part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600, exist_ok=False)  # it holds addresses and private comments
    except OSError as problem:
        raise click.ClickException(
            f"Cannot write {part}: {problem.strerror}. Name a file in a directory that this user may write to; in a "
            "container, one on a volume: /data/unwind.dump"
        ) from None
    try:
        run("pg_dump", "--format=custom", "--schema=unwind", "--no-owner", f"--file={part}")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore_backup(database_url: str, file: Path) -> int:
    """Restore into an empty database, or raise `ClickException`; return by how much the feed's ids were raised."""
    run = _backup_clients(database_url)
    engine = make_engine(database_url, timeouts=False, application_name="unwind restore", poolclass=NullPool)
    with engine.begin() as conn:
        if fact(conn, "SELECT to_regnamespace('unwind') IS NOT NULL"):
            raise click.ClickException(
                "The database already has a schema `unwind`. A restore needs an empty database: create one "
                "(CREATE DATABASE ...) and set DATABASE_URL to it."
            )
        for statement in grants.role_statements():
            conn.execute(text(statement))
    run("pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", str(file))
    with engine.begin() as conn:
        skipped = feed.advance_feed_base(conn)
    migrate(database_url)
    with engine.begin() as conn:
        conn.execute(text("ANALYZE"))  # a dump has no statistics, and workers start at once
    return skipped


def run_backup_client(folder: Path, address: PostgresAddress, program: str, *args: str) -> str:
    # The password is passed in the environment, since command lines are public.
    result = subprocess.run(
        [folder / program, f"--dbname={address.client_conninfo(f'unwind {program}')}", *args],
        env=address.client_environment(),
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    if result.returncode != 0:
        stderr = "\n".join(f"    {line}" for line in result.stderr.strip().splitlines()[-8:])
        raise click.ClickException(f"{program} failed:\n{address.without_password(stderr)}")
    return result.stdout.strip()


def _backup_clients(database_url: str) -> Callable[..., str]:
    address = PostgresAddress.parse(database_url)
    try:
        with make_engine(database_url, application_name="unwind backup", poolclass=NullPool).connect() as conn:
            if is_pooled(conn):
                refusal = PooledSessionRefused()
                raise click.ClickException(f"{refusal}: {refusal.fix}")
            server = int(fact(conn, "SHOW server_version_num")) // 10_000
            identity = fact(conn, SERVER_IDENTITY)
    except OperationalError as problem:
        reason = address.without_password(str(problem.orig).strip())
        if isinstance(problem.orig, SessionSettingsRefused):
            reason = f"{problem.orig}. {problem.orig.fix}"
        raise click.ClickException(f"The database cannot be used: {reason}") from None
    folder = _find_backup_clients(server, address)
    run = partial(run_backup_client, folder, address)
    query = f"--command={SERVER_IDENTITY}"
    if run("psql", "--no-psqlrc", "--no-align", "--tuples-only", query) != identity:
        raise click.ClickException(
            f"The programs in {folder} reach another database than DATABASE_URL names, so nothing was written. "
            "Check that none of them is a wrapper that chooses a server itself."
        )
    return run


def _find_backup_clients(server: int, address: PostgresAddress) -> Path:
    # The folder of the client programs of the server's version or the next newer one; older ones refuse.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # of two of one version the later is used
    with contextlib.suppress(ServerBinaryNotFound):
        folders.insert(0, find_postgres_bin())
    program = shutil.which("pg_dump")
    if program and Path(program).resolve().name == "pg_dump":  # not Debian's wrapper, which chooses a server itself
        folders.append(Path(program).parent)
    versions = {version[0]: folder for folder in folders if (version := program_version(folder / "pg_dump"))}
    oldest = max(server, address.oldest_client)
    fitting = [version for version in sorted(versions) if version >= oldest]
    if not fitting:
        has = f"only version {', '.join(map(str, sorted(versions)))}" if versions else "none"
        raise click.ClickException(
            f"The server is PostgreSQL {server}; of pg_dump and pg_restore this machine has {has}. Install the package "
            f"postgresql-client-{oldest}."
        )
    return versions[fitting[0]]
