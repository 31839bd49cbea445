"""pytest-celery nodes as local processes: worker and beat, with the suite's Valkey and no Docker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
from celery import Celery
from pytest_celery import CELERY_REDIS_BACKEND, CELERY_REDIS_BROKER, RedisTestBackend, RedisTestBroker

from tests.e2e.browser import browser, picture, pytest_addoption  # noqa: F401 - fixtures and the option
from tests.e2e.nodes import ProcessNode, RunningServer, UnwindWorker
from tests.e2e.race_market import race_market, race_processes  # noqa: F401 - fixtures
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url
from tests.waiting import wait_until
from workers.app import app as workers_app
from workers.simulation.engine import Simulation


class _NoDocker:
    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"an end-to-end test asked Docker for {name}: nodes are processes here")


@pytest.fixture(scope="session")
def docker_client() -> _NoDocker:
    return _NoDocker()


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> RedisTestBroker:
    broker: RedisTestBroker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture(params=[CELERY_REDIS_BACKEND])
def celery_backend(request: pytest.FixtureRequest) -> RedisTestBackend:
    backend: RedisTestBackend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture
def celery_setup_app(celery_setup_app: Celery) -> Celery:
    """pytest-celery's application, which would stay Celery's current one for every later test of the process."""
    workers_app.set_current()
    return celery_setup_app


@pytest.fixture
def default_redis_broker(broker_url: str) -> RunningServer:
    return RunningServer(broker_url)


@pytest.fixture
def default_redis_backend(result_backend: str) -> RunningServer:
    return RunningServer(result_backend)


@pytest.fixture
def default_worker_container_cls() -> type[UnwindWorker]:
    return UnwindWorker


@pytest.fixture
def node_environment(database_url: str, broker_url: str, result_backend: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend,
        "UNWIND_DATA": str(tmp_path / "data"),
    }


@pytest.fixture
def default_worker_container(
    node_environment: dict[str, str], default_worker_command: list[str], tmp_path: Path
) -> Iterator[UnwindWorker]:
    node = ProcessNode("worker", default_worker_command, node_environment, tmp_path)
    try:
        worker = UnwindWorker(node)
        while not worker.ready():
            pass
        yield worker
    finally:
        node.remove()


@pytest.fixture
def beat(node_environment: dict[str, str], tmp_path: Path) -> Iterator[ProcessNode]:
    node = ProcessNode("beat", ["celery", "-A", "workers.app", "beat"], node_environment, tmp_path)
    yield node
    node.remove()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        if "celery_setup" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def seed_two_alerts(database_url: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - the history ends now, where real processes continue
    with Simulation(database_url, at=now - timedelta(days=21)) as simulation:
        market = Market(simulation)
        lot = market.lot(quantity=100)
        for order_id in (1001, 1002):
            line = {"lot_id": lot, "quantity": 10}
            market.done("orders.submit", order_id=order_id, buyer_id="buyer", seller_id="seller", lines=[line])
        market.done("removals.request", order_id=1001, member_id="buyer", lines=[{"line_no": 1, "quantity": 1}])
        market.at(now - timedelta(days=8))
        for order_id in (1001, 1002):
            market.done("npb.file", order_id=order_id, member_id="seller")


@pytest.fixture
def upstream(broker_url: str, result_backend: str) -> Iterator[Celery]:
    with Celery("upstream", broker=broker_url, backend=result_backend, set_as_current=False) as app:
        yield app


Run = Callable[..., ProcessNode]


@contextlib.contextmanager
def running_nodes(environment: dict[str, str], folder: Path) -> Iterator[Run]:
    """Yield a function that starts workers and beats, which end with the block."""
    started: list[ProcessNode] = []

    def start(name: str, *words: str, application: str = "workers.app", **variables: str) -> ProcessNode:
        if name.startswith("beat"):
            command = ["celery", "-A", application, "beat"]
        else:
            command = [application if word == "workers.app" else word for word in UnwindWorker.command()]
            command[command.index("-n") + 1] = f"{name}@%h"
        node = ProcessNode(name, [*command, *words], environment | variables, folder)
        started.append(node)
        if not name.startswith("beat"):
            wait_until(lambda: b" ready." in node.logs(), what=f"the start of {name}")
        return node

    yield start
    for node in started:
        node.remove()


@pytest.fixture
def run(node_environment: dict[str, str], tmp_path: Path) -> Iterator[Run]:
    with running_nodes(node_environment, tmp_path) as start:
        yield start
