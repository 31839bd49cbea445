"""How does an operator keep a copy, and how does a new server go on from it?

./run backup unwind.dump
./run restore unwind.dump
"""

from __future__ import annotations

from pathlib import Path

import click

from workers.cli import data_option
from workers.settings import load_settings, settings_with_servers


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Take the place of a FILE that is there.")
@data_option
def backup(file: Path, replace: bool) -> None:
    """Write all orders, bills, promises and answers into FILE, as one moment. Workers may go on meanwhile.

    FILE holds addresses and private words, so only you can read it. Redis needs no copy: what was promised is in PostgreSQL.
    """
    from workers.local.backup import BackupError, back_up

    if file.exists() and not replace:
        raise click.ClickException(f"{file} is there already. --replace takes its place.")
    try:
        with settings_with_servers(load_settings()) as settings:
            assert settings.database_url is not None
            size = back_up(settings.database_url.get_secret_value(), file)
    except BackupError as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"{file}: {size / 1e6:,.1f} MB. `./run restore {file}` brings it into an empty database.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@data_option
def restore(file: Path) -> None:
    """Bring FILE into an empty database, whole or not at all, and prove that what must hold does.

    The database is that of DATABASE_URL, or of a new --data folder. Workers are started afterwards, on an empty Redis:
    whatever was promised and not done is rung for again.
    """
    from models.db import database as db
    from models.integrity import invariants, month_audit
    from workers.local.backup import BackupError
    from workers.local.backup import restore as bring_back

    try:
        with settings_with_servers(load_settings()) as settings:
            assert settings.database_url is not None
            url = settings.database_url.get_secret_value()
            came = bring_back(url, file)
            database = db.connect(url, as_app=False)
            try:
                with database.transaction() as conn:
                    now = database.clock.now(conn)
                    broken = invariants.check(conn, now, in_time=False, months=month_audit.closed_months(conn))
            finally:
                database.dispose()
    except BackupError as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"{came.orders:,} orders and {came.events:,} events are back.")
    if came.feed_transactions_skipped:
        click.echo(
            f"Readers of the feed go on with the cursors they have (moved on by {came.feed_transactions_skipped:,} transactions)."
        )
    if broken:
        raise click.ClickException("But not all that must hold does: ./run audit names what differs.")
    click.echo("All that must hold does. Start the workers on an empty Redis: what was promised is rung for again.")
