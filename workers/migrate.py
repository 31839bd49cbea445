"""Migration of a database's schema, and of the command names in it that this version accepts; waits for the server."""

from __future__ import annotations

import time

import click
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping
from sqlalchemy.exc import OperationalError

from models import migrations
from models.db.postgres_address import PostgresAddress, clear_libpq_environment
from models.db.session_settings import SessionSettingsRefused
from tasks.declarations import all_commands
from workers.settings import Settings

APPLICATION_NAME = "unwind migrate"


def migrate(database_url: str) -> None:
    migrations.upgrade(database_url, commands=all_commands())


def migrate_database(settings: Settings, wait_seconds: int = 0) -> None:
    if settings.migration_url is None:
        raise click.ClickException("There is no database to migrate: set DATABASE_URL.")
    url = settings.migration_url.get_secret_value()
    address = PostgresAddress.parse(url)
    if wait_seconds:
        _wait_before_migration(address, wait_seconds)
    try:
        migrate(url)
    except OperationalError as problem:
        refusal = problem.orig
        if isinstance(refusal, SessionSettingsRefused):
            raise click.ClickException(f"{refusal}. Fix: {refusal.fix}") from None
        is_refused = isinstance(refusal, psycopg.Error) and refusal.pgconn is not None and refusal.sqlstate is None
        if is_refused and _ping_before_migration(address) == Ping.OK:
            reason = str(refusal).strip().splitlines()[0]
            raise click.ClickException(
                f"PostgreSQL refuses the login: {reason}. Fix: {_advise_refused_migration(address, reason)}"
            ) from None
        raise


def _wait_before_migration(address: PostgresAddress, timeout: float) -> None:
    # Wait until the server accepts connections, for at most `timeout` seconds, and report why when that changes.
    # A server that refuses the login is not waited for: the caller's own connection gets the error.
    deadline = time.monotonic() + timeout
    reported = ""
    while (reason := _migration_wait_reason(address)) and time.monotonic() < deadline:
        if reason != reported:
            click.echo(f"Waiting up to {timeout:.0f} s for PostgreSQL: {reason}", err=True)
            reported = reason
        time.sleep(0.5)


def _advise_refused_migration(address: PostgresAddress, reason: str) -> str:
    user = address.user or "unwind_owner"
    if f'database "{address.database}" does not exist' in reason:
        return (
            f"as an administrator: CREATE DATABASE {address.database} OWNER {user} TEMPLATE template0 ENCODING 'UTF8';"
        )
    return (
        f"correct the user and the password in DATABASE_URL, or as an administrator: CREATE ROLE {user} LOGIN "
        "CREATEROLE PASSWORD '...'; (docs/operate.md, PostgreSQL)"
    )


def _migration_wait_reason(address: PostgresAddress) -> str:
    clear_libpq_environment()
    try:
        psycopg.connect(**address.connection_parameters(APPLICATION_NAME)).close()  # type: ignore[arg-type]
    except psycopg.OperationalError as problem:
        if _ping_before_migration(address) != Ping.OK:
            return address.without_password(str(problem).strip().splitlines()[0])
    return ""


def _ping_before_migration(address: PostgresAddress) -> int:
    # libpq tells by the SQLSTATE whether a server refuses a login or is not ready, whatever its messages' language.
    return PGconn.ping(make_conninfo(**address.connection_parameters(APPLICATION_NAME)).encode())
