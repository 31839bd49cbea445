"""The database of commands that need no broker, and a transaction in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime

import click
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from models.db import database as db
from models.db.session_settings import SessionSettingsRefused
from workers.migrate import migrate
from workers.settings import load_settings


@contextlib.contextmanager
def open_database(*, as_app: bool = True, role: str = db.APP_ROLE) -> Iterator[db.Database]:
    """Open the database of DATABASE_URL, else the embedded one, starting and migrating it when needed.

    `as_app` acts in `role`, by default the application's; without it, as the owner.
    """
    settings = load_settings()
    with contextlib.ExitStack() as stack:
        configured = settings.database_url
        url = (configured or stack.enter_context(settings.with_servers_running()).database_url).get_secret_value()  # type: ignore[union-attr]
        database = db.connect(url, as_app=as_app, role=role)
        stack.callback(database.dispose)
        try:
            with database.transaction() as conn:
                migrated = conn.execute(text("SELECT to_regclass('unwind.orders') IS NOT NULL")).scalar()
        except OperationalError as error:
            if isinstance(error.orig, SessionSettingsRefused):
                raise click.ClickException(f"{error.orig}. Fix: {error.orig.fix}") from None
            raise click.ClickException(f"The database does not answer: {str(error.orig).splitlines()[0]}") from None
        if not migrated:
            if configured is not None:
                raise click.ClickException("The database has no tables yet. Create them with `./run migrate`.")
            migrate(url)
        yield database


@contextlib.contextmanager
def open_transaction(*, snapshot: bool = False, role: str = db.APP_ROLE) -> Iterator[tuple[Connection, datetime]]:
    """Open the database and a transaction with its time. `snapshot`: all statements read the same state."""
    with open_database(role=role) as database, database.transaction() as conn:
        if snapshot:
            db.use_snapshot_isolation(conn)
        yield conn, database.clock.now(conn)
