"""Fixtures for simulations: a database, a settable clock, the real task bodies, and the invariants at the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kombu import pools

from models.db import database as db
from models.integrity import invariants, month_audit
from workers.app import app
from workers.settings import current_settings
from workers.simulation.engine import Simulation


@pytest.fixture
def simulation(database_url: str) -> Iterator[Simulation]:
    with Simulation(database_url) as standing:
        yield standing


@pytest.fixture
def environment(
    simulation: Simulation,
    database_url: str,
    broker_url: str,
    result_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Simulation]:
    """A simulation whose servers are in the environment, where `./run` commands find them."""
    for name, value in (
        ("DATABASE_URL", database_url),
        ("CELERY_BROKER_URL", broker_url),
        ("CELERY_RESULT_BACKEND", result_backend),
        ("UNWIND_DATA", str(tmp_path)),
    ):
        monkeypatch.setenv(name, value)
    current_settings.cache_clear()
    monkeypatch.setattr(app, "servers_found", False)
    yield simulation
    pools.reset()  # type: ignore[no-untyped-call]
    app._after_fork()  # the pools of the next one are new
    current_settings.cache_clear()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "breaks_invariants(reason): the test plants what must never be")


@pytest.fixture(autouse=True)
def _invariants_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    # All invariants are checked after every test that used a simulation.
    if "simulation" not in request.fixturenames or request.node.get_closest_marker("breaks_invariants"):
        yield
        return
    url = request.getfixturevalue("database_url")
    yield

    database = db.connect(url)
    try:
        with database.transaction() as conn:
            months = month_audit.months_to_audit(conn)
            broken = invariants.query_invariants(conn, datetime(2100, 1, 1, tzinfo=UTC), in_time=False, months=months)
    finally:
        database.dispose()
    assert not broken, broken
