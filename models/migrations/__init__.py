"""Schema migrations: `upgrade(url)` brings any database to the newest schema; concurrent calls are safe.

Nothing is released yet, so the schema is a single revision that is regenerated when tables change:

    python -m tools.first_revision
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from models.db.database import make_engine
from models.db.session_settings import set_local
from models.ddl.complete_metadata import metadata
from models.ddl.grants import grant_rights
from models.feed import advance_feed_base
from models.submissions import add_commands

_LOCK = "COMMENT ON SCHEMA unwind IS 'Unwind: orders, stock, bills and notices'"
"""Locks the schema until the transaction ends, as only its owner may: migrations wait for each other."""
LOCK_TIMEOUT = "5s"
"""While a migration waits for a table lock, all others wait behind it, so it gives up and is tried again."""
MIGRATION_STATEMENT_TIMEOUT = "10min"


def upgrade(database_url: str, *, commands: Iterable[str] = ()) -> None:
    """Bring the database to the newest schema; all or nothing.

    `database_url` logs in as the owner of the tables. `commands` are names that the SQL interface takes.
    """
    engine = make_engine(database_url, timeouts=False, application_name="unwind migrate")
    try:
        try:
            _upgrade(engine, commands)
        except IntegrityError:  # another one made the schema in this very moment: now it is there
            _upgrade(engine, commands)
    finally:
        engine.dispose()


def _upgrade(engine: Engine, commands: Iterable[str]) -> None:
    with engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA IF NOT EXISTS unwind"))
        conn.execute(text(_LOCK))
        set_local(conn, lock_timeout=LOCK_TIMEOUT, statement_timeout=MIGRATION_STATEMENT_TIMEOUT)
        command.upgrade(alembic_config(conn), "head")
        grant_rights(conn)
        add_commands(conn, commands)
        advance_feed_base(conn)


def migrated_schema_differences(conn: Connection) -> list[object]:
    context = MigrationContext.configure(
        conn,
        opts={
            "include_schemas": True,
            "include_name": include_migrated_name,
            "version_table_schema": "unwind",
            "compare_server_default": True,
        },
    )
    return list(compare_metadata(context, metadata))


def head_revision() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def include_migrated_name(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "schema" or name == "unwind"


def alembic_config(conn: Connection | None = None) -> Any:
    # Made here, because a file would contain a database address.
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    return config
