"""Of which nodes does an end-to-end test consist?  Our worker and beat as processes, the suite's Valkey, no Docker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pytest_celery import CELERY_REDIS_BACKEND, CELERY_REDIS_BROKER, RedisTestBackend, RedisTestBroker

from tests.e2e.nodes import ProcessNode, RunningServer, UnwindWorker


class _NoDocker:
    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"an end-to-end test asked Docker for {name}: nodes are processes here")


@pytest.fixture(scope="session")
def docker_client() -> _NoDocker:
    """pytest-celery's only way to Docker: closed."""
    return _NoDocker()


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> RedisTestBroker:
    """Valkey only: there is no RabbitMQ here."""
    broker: RedisTestBroker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture(params=[CELERY_REDIS_BACKEND])
def celery_backend(request: pytest.FixtureRequest) -> RedisTestBackend:
    """The same."""
    backend: RedisTestBackend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture
def default_redis_broker(broker_url: str) -> RunningServer:
    """The suite's Valkey, in an empty database of the test's own."""
    return RunningServer(broker_url)


@pytest.fixture
def default_redis_backend(result_backend: str) -> RunningServer:
    """Its next database."""
    return RunningServer(result_backend)


@pytest.fixture
def default_worker_container_cls() -> type[UnwindWorker]:
    """Ours."""
    return UnwindWorker


@pytest.fixture
def node_environment(database_url: str, broker_url: str, result_backend: str, tmp_path: Path) -> dict[str, str]:
    """The variables of every node."""
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
    """A worker of two processes on all four queues."""
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
    """The clock."""
    words = ["celery", "-A", "workers.app", "beat", "-s", str(tmp_path / "beat-schedule"), "--pidfile="]
    node = ProcessNode("beat", words, node_environment, tmp_path)
    yield node
    node.remove()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Whoever asks for a set-up of nodes is an end-to-end test."""
    for item in items:
        if "celery_setup" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
