"""The `backup` and `restore` commands; a restore ends with a check of every invariant.

./run backup unwind.dump
./run restore unwind.dump
"""

from __future__ import annotations

from pathlib import Path

import click

from models.db import database as db
from models.integrity import invariants, month_audit
from workers.cli import data_option
from workers.cli.terminal_text import echo
from workers.local import COMMAND
from workers.local import backup as dumps
from workers.settings import load_settings


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace FILE when it exists.")
@data_option
def backup(file: Path, replace: bool) -> None:
    """Write all orders, bills, outbox messages and answers to FILE as one snapshot, while workers go on.

    FILE contains addresses and private comments, so only you can read it. Redis needs no backup: the outbox is in
    PostgreSQL.
    """
    if file.exists() and not replace:
        raise click.ClickException(f"{file} exists. Use --replace to replace it.")
    try:
        with load_settings().with_servers_running() as settings:
            assert settings.migration_url is not None
            size = dumps.back_up(settings.migration_url.get_secret_value(), file)
    except dumps.BackupError as problem:
        raise click.ClickException(str(problem)) from None
    echo(f"{file}: {size / 1e6:,.1f} MB. Restore it into an empty database with `{COMMAND} restore {file}`.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@data_option
def restore(file: Path) -> None:
    """Restore FILE into an empty database, completely or not at all, and check every invariant.

    The database is that of DATABASE_URL, or of a new --data directory. Start the workers afterwards, on an empty Redis:
    the relay republishes whatever is unfinished.
    """
    try:
        with load_settings().with_servers_running() as settings:
            assert settings.migration_url is not None
            url = settings.migration_url.get_secret_value()
            restored = dumps.restore(url, file)
            database = db.connect(url, as_app=False)
            try:
                with database.transaction() as conn:
                    now = database.clock.now(conn)
                    months = month_audit.closed_months(conn)
                    violations = invariants.check_invariants(conn, now, in_time=False, months=months)
            finally:
                database.dispose()
    except dumps.BackupError as problem:
        raise click.ClickException(str(problem)) from None
    echo(f"{restored.orders:,} orders and {restored.events:,} events are restored.")
    if restored.feed_transactions_skipped:
        echo(
            "Readers of the event feed keep the cursors they have "
            f"(the feed was moved on by {restored.feed_transactions_skipped:,} transactions)."
        )
    if violations:
        raise click.ClickException("Not every invariant holds: ./run audit names what is violated.")
    echo("All invariants hold. Start the workers on an empty Redis: unfinished messages are republished.")
