"""Databases for simulations: temporary ones on their own servers, or an empty one specified by the user."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import text

from models.db.database import make_engine
from workers.embedded.client import embedded_servers
from workers.migrate import migrate
from workers.simulation.engine import Simulation


class DatabaseNotEmpty(click.ClickException):
    pass


@contextlib.contextmanager
def simulation_pool() -> Iterator[SimulationPool]:
    with (
        tempfile.TemporaryDirectory(prefix="unwind-replay-") as folder,
        embedded_servers(Path(folder), durable=False) as urls,
    ):
        yield SimulationPool(urls.database_url)


class SimulationPool:
    def __init__(self, database_url: str) -> None:
        self._server, _, _ = database_url.rpartition("/")
        self._admin = make_engine(database_url, timeouts=False, isolation_level="AUTOCOMMIT")
        self._count = 0
        self._run("CREATE DATABASE unwind_first TEMPLATE template0")
        migrate(f"{self._server}/unwind_first")

    @contextlib.contextmanager
    def fresh(self, at: datetime, *, allow_short: bool = False) -> Iterator[Simulation]:
        self._count += 1
        name = f"unwind_history_{self._count}"
        self._run(f"CREATE DATABASE {name} TEMPLATE unwind_first STRATEGY FILE_COPY")
        with Simulation(f"{self._server}/{name}", at=at, allow_short=allow_short) as simulation:
            yield simulation
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with self._admin.connect() as conn:
            conn.execute(text(statement))
        self._admin.dispose()


def simulation_in_empty_database(database_url: str, at: datetime, *, allow_short: bool = False) -> Simulation:
    engine = make_engine(database_url)
    try:
        with engine.connect() as conn:
            has_contents = conn.execute(text(_SIMULATION_DATABASE_HAS_CONTENTS)).scalar()
    finally:
        engine.dispose()
    if has_contents:
        raise DatabaseNotEmpty("The database is not empty. A history is only played into one that has no tables yet.")
    migrate(database_url)
    return Simulation(database_url, at=at, allow_short=allow_short)


_SIMULATION_DATABASE_HAS_CONTENTS = """
    SELECT EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ) OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'unwind')
"""
