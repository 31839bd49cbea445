"""Fixtures of the tests of models."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from tests.models.seed_history import play_history
from tests.plugins.market import ORDERED, Market
from tests.plugins.servers import fresh_database
from workers.embedded.client import ServerUrls
from workers.simulation.engine import Simulation


@pytest.fixture(scope="module")
def seeded_engine(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Engine]:
    """A database with the history of `seed_history`, once for each test file."""
    with fresh_database(servers, admin, template_database) as url:
        with Simulation(url, at=ORDERED) as simulation:
            play_history(Market(simulation))
        engine = create_engine(url)
        yield engine
        engine.dispose()
