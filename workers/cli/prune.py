"""The `prune` command: delete old answers as the owner of the tables, from cron or by hand.

./run prune
./run prune --older-than 45
"""

from __future__ import annotations

from datetime import timedelta

import click

from models import retention
from policies.texts import pluralize
from workers.cli.database import open_database
from workers.cli.terminal_text import echo


@click.command()
@click.option("--older-than", "days", type=click.IntRange(30), default=90, show_default=True, metavar="DAYS")
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Rows per transaction.",
)
def prune(days: int, batch: int) -> None:
    """Delete answered requests and finished outbox messages older than DAYS (at least the guaranteed 30).

    Logs in as DATABASE_URL says, as the owner: the application's role may not delete. Safe to repeat, to interrupt, and
    to run beside work.
    """
    total = 0
    with open_database(as_app=False) as database:
        with database.transaction() as conn:
            older_than = database.clock.now(conn) - timedelta(days=days)
        deleted = batch
        while deleted:
            with database.transaction() as conn:
                deleted = retention.prune(conn, older_than, batch)
            total += deleted
    echo(f"{pluralize(total, 'row', 'rows')} deleted.")
