"""Fixtures of the doctor's tests: a healthy installation, its broker, an owner connection and bad servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from models.db import database as db
from schedules.routes import QUEUES
from tests.plugins.servers import libpq_url
from tests.workers.monitoring.doctor.findings import real_now
from workers.embedded.client import ServerUrls, embedded_servers
from workers.monitoring.doctor import broker
from workers.monitoring.doctor.context import Context
from workers.settings import load_settings


@pytest.fixture
def context(database_url: str, tmp_path: Path) -> Iterator[Context]:
    """A healthy installation after `up`, seen from its database."""
    database = db.connect(database_url)
    yield Context(
        load_settings(database_url=database_url, data_dir=tmp_path),
        external_servers=False,
        supervised_since=real_now(),
        database=database,
        has_schema=True,
    )
    database.dispose()


@pytest.fixture
def with_broker(context: Context, broker_url: str, result_backend: str) -> Iterator[Context]:
    """The same with its broker."""
    settings = load_settings(
        database_url=context.settings.database_url,
        broker_url=broker_url,
        result_backend=result_backend,
        data_dir=context.settings.data_dir,
    )
    with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
        consumers = {"worker@here": list(QUEUES)}
        info: Any = client.info()
        yield replace(
            context, settings=settings, broker=client, broker_info=info, embedded_broker=True, consumers=consumers
        )


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """The owner of the test's database."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def bad_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUrls]:
    """Servers of its own, for breaking what all databases of a server share."""
    with embedded_servers(
        tmp_path_factory.mktemp("bad") / "data",
        durable=False,
        postgres_settings={"max_connections": "15"},
        valkey_settings={"maxmemory-policy": "allkeys-lru", "databases": "1"},
    ) as urls:
        yield urls


@pytest.fixture
def at_bad_servers(bad_servers: ServerUrls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their addresses in the environment, with a short timeout for workers that don't exist."""
    monkeypatch.setenv("DATABASE_URL", bad_servers.database_url)
    monkeypatch.setenv("CELERY_BROKER_URL", bad_servers.broker_url)
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setattr(broker, "WORKER_RESPONSE_TIMEOUT", 0.05)
