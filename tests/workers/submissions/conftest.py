"""Fixtures of the tests of submissions."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.plugins.servers import libpq_url


@pytest.fixture
def caller(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection of an upstream system, with a transaction of its own."""
    with psycopg.connect(libpq_url(database_url)) as conn:
        yield conn
