"""Alembic's environment: it runs on the connection and in the transaction of `models.migrations.upgrade`."""

from __future__ import annotations

from alembic import context

from models.ddl.complete_metadata import metadata
from models.migrations import include_migrated_name

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Use `./run migrate`: it finds the database and takes the lock.")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema="unwind",
    include_schemas=True,
    include_name=include_migrated_name,
)
context.run_migrations()
