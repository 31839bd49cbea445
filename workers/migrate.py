"""Migration of a database, with the names of the commands that this version takes."""

from __future__ import annotations

from models import migrations
from tasks.declarations import all_commands


def migrate(database_url: str) -> None:
    """Bring the database to the newest schema and make its SQL interface accept every declared command."""
    migrations.upgrade(database_url, commands=all_commands())
