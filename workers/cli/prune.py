"""How are answers taken away that nobody will ask for any more?  By the owner of the tables, from cron or by hand.

./run prune
./run prune --older-than 45
"""

from __future__ import annotations

from datetime import timedelta

import click

from workers.cli import data_option
from workers.cli.database import open_database


@click.command()
@click.option("--older-than", "days", type=click.IntRange(30), default=90, show_default=True, metavar="DAYS")
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True, metavar="N", help="Rows at a time."
)
@data_option
def prune(days: int, batch: int) -> None:
    """Delete answered requests and kept promises that are older than so many days (at least the promised 30).

    Logs in as DATABASE_URL says, the owner: the application itself may not delete. Safe to repeat, to stop, to run beside work.
    """
    from models import retention

    total = 0
    with open_database(as_app=False) as database:
        with database.transaction() as conn:
            older_than = database.clock.now(conn) - timedelta(days=days)
        while True:
            with database.transaction() as conn:
                gone = retention.prune(conn, older_than, batch)
            total += gone
            if not gone:
                break
    click.echo(f"{total} rows are gone.")
