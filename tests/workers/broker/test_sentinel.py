"""Tests of a broker that Redis Sentinel moves to another server."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from models import outbox
from models.outbox import OutboxRow
from policies.verdicts import OutboxMessage
from tasks.process_services import services
from tests.plugins.sentinel import MAX_SECONDS, PASSWORD, SENTINEL_PASSWORD, SentinelGroup
from tests.plugins.stored_rows import load_column
from workers.app import app
from workers.broker.redis_url import connect_to_redis
from workers.broker.result_backend import ResultBackend
from workers.broker.wakeups import OutboxPublisher
from workers.embedded.processes import wait_until
from workers.simulation.engine import Simulation
from workers.transport.connection import Connection

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
TASK = "removals.cancel_pending"


def succeeds(action: Callable[[], Any]) -> bool:
    try:
        action()
    except (redis.RedisError, *Connection("redis://").recoverable_connection_errors):
        return False
    return True


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's own call
def test_every_client_follows_a_failover(sentinel_group: SentinelGroup) -> None:
    """With connections to the demoted server."""
    url = sentinel_group.url()
    backend = ResultBackend(app=app, url=sentinel_group.url(1))
    publisher_of_rows = OutboxPublisher(app, connect_to_redis(url))
    with (
        contextlib.closing(connect_to_redis(url)) as client,
        Connection(url, transport_options=app.conf.broker_transport_options) as connection,
        connection.Pool(1).acquire() as pooled,
    ):

        def send() -> None:
            app.send_task("outbox.relay", connection=connection, ignore_result=True, retry=False)

        def send_from_pool() -> None:
            app.send_task("outbox.relay", connection=pooled, ignore_result=True, retry=False)

        def store() -> None:
            backend.store_result("an-id", {"outcome": "done"}, "SUCCESS")

        client.set("a", 1)
        send()
        send_from_pool()
        store()
        epoch = publisher_of_rows.broker_epoch()
        assert epoch
        sentinel_group.fail_over()
        for action in (lambda: client.set("a", 2), send, send_from_pool, store, publisher_of_rows.broker_epoch):
            assert wait_until(lambda action=action: succeeds(action), MAX_SECONDS)  # type: ignore[misc]
        assert publisher_of_rows.broker_epoch() not in (None, epoch)
        with contextlib.closing(sentinel_group.client(sentinel_group.replica)) as promoted:
            assert promoted.get("a") == b"2"
            assert promoted.llen("sweeps") + promoted.llen("outbox") >= 4
        assert backend.get_result("an-id") == {"outcome": "done"}


def test_passwords_are_not_shown(sentinel_group: SentinelGroup) -> None:
    url = sentinel_group.url()
    with Connection(url) as connection:
        shown = f"{connection.as_uri()} {connection!r} {ResultBackend(app=app, url=url).as_uri()}"
        assert PASSWORD not in shown
        assert SENTINEL_PASSWORD not in shown
        assert f"127.0.0.1:{sentinel_group.sentinel_port}" in shown
        assert SENTINEL_PASSWORD not in json.dumps(connection.info())  # as `celery inspect stats` sends it
        with Connection(connection.as_uri(include_password=True)) as again:
            again.connect()


@pytest.fixture
def publishing(sentinel_group: SentinelGroup, simulation: Simulation) -> Iterator[Simulation]:
    with Connection(sentinel_group.url(), transport_options=app.conf.broker_transport_options) as connection:

        class Publisher(OutboxPublisher):
            def publish(self, task: str, rows: Any) -> None:
                app.send_task(task, kwargs={"rows": list(rows)}, queue="consequences", connection=connection)

        services.publisher = Publisher(app, connect_to_redis(sentinel_group.url()))
        yield simulation
        services.publisher = None


@pytest.mark.guarantee("P1")
def test_a_lost_tail_of_the_queue_is_published_again(publishing: Simulation, sentinel_group: SentinelGroup) -> None:
    """By PostgreSQL's outbox, when the next relay runs; what was not lost may be published twice."""

    def enqueue(keys: list[str]) -> None:
        with publishing.database.transaction() as conn:
            outbox.enqueue_messages(conn, [OutboxMessage(TASK, key, None) for key in keys], publishing.clock.instant)

    def published() -> set[int]:
        with contextlib.closing(connect_to_redis(sentinel_group.url())) as client:
            bodies = [
                json.loads(base64.b64decode(json.loads(raw)["body"])) for raw in client.lrange("consequences", 0, -1)
            ]
        return {row for body in bodies for row in body[1]["rows"]}

    enqueue(["kept:1", "kept:2"])
    publishing.do("outbox.relay")
    kept = published()
    assert len(kept) == 2
    with contextlib.closing(sentinel_group.client(sentinel_group.replica)) as replica:
        assert wait_until(lambda: replica.llen("consequences") == 1, MAX_SECONDS)
    sentinel_group.lose_what_follows()
    enqueue(["lost:1", "lost:2", "lost:3"])
    publishing.clock.instant += outbox.REPUBLISH_INTERVAL
    publishing.do("outbox.relay")
    with publishing.database.transaction() as conn:
        rows = set(load_column(conn, OutboxRow.outbox_id))
    assert published() == rows
    sentinel_group.kill_primary()
    assert wait_until(lambda: succeeds(published), MAX_SECONDS)
    assert published() == kept, "the tail of the queue is lost"
    assert wait_until(lambda: succeeds(lambda: publishing.do("outbox.relay")) and published() == rows, MAX_SECONDS)
