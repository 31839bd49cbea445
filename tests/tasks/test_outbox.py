"""The outbox: what a commit wakes, what the relay publishes, and again after the broker lost its data."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis

from models import outbox
from models.outbox import OutboxRow
from models.unit_of_work import unit_of_work
from policies.verdicts import OutboxMessage
from tasks.process_services import services
from tests.plugins.stored_rows import load_column
from workers.app import app
from workers.broker.redis_url import connect_to_redis
from workers.broker.wakeups import OutboxPublisher
from workers.simulation.engine import Simulation

TASK = "removals.cancel_pending"


@pytest.fixture
def publishing(environment: Simulation, broker_url: str) -> Iterator[Simulation]:
    with connect_to_redis(broker_url) as client:
        services.publisher = OutboxPublisher(app, client)
        yield environment
    services.publisher = None


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def enqueue_rows(simulation: Simulation, count: int) -> list[int]:
    with simulation.database.transaction() as conn:
        outbox.enqueue_messages(
            conn, [OutboxMessage(TASK, f"test:{n}", None) for n in range(count)], simulation.clock.instant
        )
        return load_column(conn, OutboxRow.outbox_id)


def complete_rows(simulation: Simulation, rows: list[int]) -> None:
    with simulation.database.transaction() as conn:
        outbox.mark_messages_done(conn, outbox.claim_messages(conn, TASK, rows=rows), simulation.clock.instant)


def published_rows(broker: redis.Redis) -> list[int]:
    row_ids: list[int] = []
    for raw in broker.lrange("consequences", 0, -1):
        row_ids += json.loads(base64.b64decode(json.loads(raw)["body"]))[1]["rows"]
    return sorted(row_ids)


def test_a_commit_wakes_the_tasks_of_its_rows_and_the_relay_publishes_what_they_leave(
    publishing: Simulation, broker: redis.Redis
) -> None:
    publishing.do("outbox.relay")  # meets the broker
    woken: list[str] = []
    publishing.database.wake = woken.append
    with unit_of_work() as work:
        work.enqueue([OutboxMessage(TASK, f"test:{n}", None) for n in range(2)])
    assert woken == [TASK]
    publishing.do("outbox.relay")
    publishing.clock.instant += outbox.REPUBLISH_INTERVAL - timedelta(seconds=1)
    publishing.do("outbox.relay")
    assert published_rows(broker) == []
    publishing.clock.instant += timedelta(seconds=1)
    publishing.do("outbox.relay")
    assert len(published_rows(broker)) == 2


def test_a_wakeup_takes_new_rows_and_wakes_the_next_run_when_it_leaves_some(
    publishing: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_CLAIMED_ROWS", 2)
    failed, *rows = enqueue_rows(publishing, 4)
    woken: list[str] = []
    publishing.database.wake_at_once = woken.append
    claimed = []
    for _ in range(2):
        with unit_of_work() as work:
            outbox.record_outbox_failure(work.conn, failed, "an earlier attempt", work.now)
            due = work.claim_messages(TASK, [], None)
            outbox.mark_messages_done(work.conn, due, work.now)
            claimed.append([message.outbox_id for message in due])
    assert (claimed, woken) == ([rows[:2], rows[2:]], [TASK])


@pytest.mark.guarantee("P1")
def test_the_next_relay_republishes_what_an_emptied_broker_lost(publishing: Simulation, broker: redis.Redis) -> None:
    rows = enqueue_rows(publishing, 5)
    publishing.clock.instant += outbox.REPUBLISH_INTERVAL
    publishing.do("outbox.relay")
    assert published_rows(broker) == rows
    complete_rows(publishing, rows[:2])
    broker.flushdb()
    publishing.clock.instant += timedelta(seconds=2)
    for _ in range(3):
        publishing.do("outbox.relay")
    assert published_rows(broker) == rows[2:]
    publishing.clock.instant += outbox.REPUBLISH_INTERVAL
    publishing.do("outbox.relay")
    assert published_rows(broker) == rows[2:], "they wait longer each time"


def test_each_loss_of_the_broker_republishes_each_row_once(publishing: Simulation, broker: redis.Redis) -> None:
    (row,) = enqueue_rows(publishing, 1)
    for _ in range(3):
        broker.flushdb()
        for _ in range(10):
            publishing.do("outbox.relay")
        assert published_rows(broker) == [row]
    with publishing.database.transaction() as conn:
        assert load_column(conn, OutboxRow.publish_count) == [4], "the wake-up of the commit counts"


def test_a_known_broker_epoch_that_arrives_late_changes_nothing(publishing: Simulation) -> None:
    enqueue_rows(publishing, 3)
    with publishing.database.transaction() as conn:
        now = publishing.clock.instant
        outbox.requeue_after_broker_reset(conn, "a", now)
        outbox.claim_for_publish(conn, now)
        assert [outbox.requeue_after_broker_reset(conn, memory, now) for memory in ("b", "a", "b", "a")] == [3, 0, 0, 0]
        outbox.claim_for_publish(conn, now)
        assert outbox.requeue_after_broker_reset(conn, "c", now) == 3


def test_an_unreachable_broker_has_no_epoch(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    broker_publisher = OutboxPublisher(app, broker)
    epoch = broker_publisher.broker_epoch()
    assert epoch == broker_publisher.broker_epoch()
    broker.delete("unwind:memory")
    assert epoch is not None
    assert broker_publisher.broker_epoch() != epoch
    assert broker_publisher.broker_epoch().endswith(broker.info("server")["run_id"])  # type: ignore[union-attr]
    assert OutboxPublisher(app, connect_to_redis("redis://127.0.0.1:1/0")).broker_epoch() is None
    with monkeypatch.context() as emptied_meanwhile:
        emptied_meanwhile.setattr(broker, "set", lambda *_, **__: broker.delete(OutboxPublisher.EPOCH_KEY))
        assert OutboxPublisher(app, broker).broker_epoch() not in (None, epoch)


@pytest.mark.guarantee("P4")
def test_rows_keep_their_publish_interval_after_the_database_clock_was_set_back(
    publishing: Simulation, broker: redis.Redis
) -> None:
    start = publishing.clock.instant
    publishing.do("outbox.relay")
    [row] = enqueue_rows(publishing, 1)
    publishing.clock.instant = start - timedelta(days=1)
    publishing.do("outbox.relay")
    assert published_rows(broker) == []
    publishing.clock.instant += outbox.REPUBLISH_INTERVAL
    for _ in range(2):
        publishing.do("outbox.relay")
        assert published_rows(broker) == [row]
