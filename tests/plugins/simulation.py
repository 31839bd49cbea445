"""Fixtures for simulations: a database of its own, a settable clock, the real task bodies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import pools

from workers import lifecycle
from workers.app import app
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
    lifecycle.process_settings.cache_clear()
    monkeypatch.setattr(app, "servers_found", False)
    yield simulation
    pools.reset()  # type: ignore[no-untyped-call]
    app._after_fork()  # the pools of the next one are new
    lifecycle.process_settings.cache_clear()
