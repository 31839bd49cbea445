"""How does a command that only looks, or acts without a broker, get at the installation's database?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from models.db import database as db
from workers.settings import load_settings, settings_with_servers


@contextlib.contextmanager
def open_database(*, as_app: bool = True) -> Iterator[db.Database]:
    """The database of DATABASE_URL, else the embedded one, started and migrated when it is not there yet.

    `as_app`: act in the application's role, as all but what only the owner may do.
    """
    settings = load_settings()
    with contextlib.ExitStack() as held:
        given = settings.database_url
        url = (given or held.enter_context(settings_with_servers(settings)).database_url).get_secret_value()  # type: ignore[union-attr]
        database = db.connect(url, as_app=as_app)
        held.callback(database.dispose)
        try:
            with database.transaction() as conn:
                migrated = conn.execute(text("SELECT to_regclass('unwind.orders') IS NOT NULL")).scalar()
        except OperationalError as error:
            if isinstance(error.orig, db.SessionRefused):
                raise click.ClickException(f"{error.orig}. Mend: {error.orig.fix}") from None
            raise click.ClickException(f"The database does not answer: {str(error.orig).splitlines()[0]}") from None
        if not migrated:
            if given is not None:
                raise click.ClickException("The database has no tables yet. `./run migrate` makes them.")
            from models.migrations import upgrade

            upgrade(url)
        yield database
