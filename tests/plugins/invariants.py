"""Checks all invariants after every test that used a simulation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from models.db import database as db
from models.integrity import invariants, month_audit


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "breaks_invariants(reason): the test plants what must never be")


@pytest.fixture(autouse=True)
def _invariants_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    if "simulation" not in request.fixturenames or request.node.get_closest_marker("breaks_invariants"):
        yield
        return
    url = request.getfixturevalue("database_url")
    yield

    database = db.connect(url)
    try:
        with database.transaction() as conn:
            months = month_audit.closed_months(conn)
            broken = invariants.check_invariants(conn, datetime(2100, 1, 1, tzinfo=UTC), in_time=False, months=months)
    finally:
        database.dispose()
    assert not broken, broken
