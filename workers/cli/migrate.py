"""The `migrate` command: upgrade the database schema."""

from __future__ import annotations

import click

from workers.migrate import migrate_database
from workers.settings import load_settings


@click.command()
@click.option(
    "--wait",
    "wait_seconds",
    type=click.IntRange(min=0),
    default=0,
    metavar="SECONDS",
    help="Wait for a server that does not answer yet or is starting up.",
)
def migrate(wait_seconds: int) -> None:
    """Upgrade the database schema to the newest version. Safe to repeat, and to run twice at once."""
    with load_settings().with_servers_running() as settings:
        migrate_database(settings, wait_seconds)
    click.echo("The schema is up to date.")
