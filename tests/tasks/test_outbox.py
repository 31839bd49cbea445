"""What is rung for, and what becomes of it when the broker forgets?  A real broker, emptied."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text

from models import outbox
from policies.verdicts import OutboxMessage
from tasks import publisher
from workers.app import app
from workers.lifecycle import BrokerPublisher
from workers.simulation.engine import Simulation

TASK = "removals.cancel_pending"


@pytest.fixture
def ringing(environment: Simulation, broker_url: str) -> Iterator[Simulation]:
    """A simulation whose relay rings through the broker."""
    publisher.set_publisher(BrokerPublisher(app, broker_url))
    yield environment
    publisher.set_publisher(None)


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """A plain connection to it."""
    with redis.Redis.from_url(broker_url) as client:
        yield client


def promised(simulation: Simulation, count: int) -> list[int]:
    with simulation.database.transaction() as conn:
        outbox.enqueue(conn, [OutboxMessage(TASK, f"test:{n}", None) for n in range(count)], simulation.clock.instant)
        return list(conn.execute(text("SELECT outbox_id FROM unwind.outbox ORDER BY 1")).scalars())


def kept(simulation: Simulation, rows: list[int]) -> None:
    with simulation.database.transaction() as conn:
        outbox.mark_done(conn, outbox.claim(conn, TASK, rows=rows), simulation.clock.instant)


def rung(broker: redis.Redis) -> list[int]:
    """The rows that messages in the queue name."""
    found: list[int] = []
    for raw in broker.lrange("consequences", 0, -1):
        found += json.loads(base64.b64decode(json.loads(raw)["body"]))[1]["rows"]
    return sorted(found)


@pytest.mark.guarantee("P1")
def test_what_an_emptied_broker_was_told_is_told_again_by_the_next_relay(
    ringing: Simulation, broker: redis.Redis
) -> None:
    """F10, promises.md 7: all that is not done, at once and once, and nothing that is."""
    rows = promised(ringing, 5)
    ringing.do("outbox.relay")
    assert rung(broker) == rows
    kept(ringing, rows[:2])
    broker.flushdb()
    ringing.clock.instant += timedelta(seconds=2)
    for _ in range(3):
        ringing.do("outbox.relay")
    assert rung(broker) == rows[2:]
    ringing.clock.instant += outbox.REPUBLISH_INTERVAL
    ringing.do("outbox.relay")
    assert rung(broker) == rows[2:], "they were rung twice by now, so they wait twice as long"


def test_a_broker_that_forgets_all_the_time_gets_each_ring_once_for_each_time(
    ringing: Simulation, broker: redis.Redis
) -> None:
    """X6: rings go on being counted and put off further and further; a loss rings once, not once a relay."""
    (row,) = promised(ringing, 1)
    for _ in range(3):
        broker.flushdb()
        for _ in range(10):
            ringing.do("outbox.relay")
        assert rung(broker) == [row]
    with ringing.database.transaction() as conn:
        assert conn.execute(text("SELECT publish_count FROM unwind.outbox")).scalar() == 3


def test_a_memory_that_was_seen_before_changes_nothing_however_late_it_is_told(ringing: Simulation) -> None:
    """Two relays may have asked on either side of the loss; the slower one must not undo what the faster one noted."""
    promised(ringing, 3)
    with ringing.database.transaction() as conn:
        now = ringing.clock.instant
        outbox.requeue_after_broker_reset(conn, "a", now)
        outbox.claim_for_publish(conn, now)
        assert [outbox.requeue_after_broker_reset(conn, memory, now) for memory in ("b", "a", "b", "a")] == [3, 0, 0, 0]
        outbox.claim_for_publish(conn, now)
        assert outbox.requeue_after_broker_reset(conn, "c", now) == 3


def test_a_broker_that_does_not_answer_has_forgotten_nothing_yet(
    ringing: Simulation, broker: redis.Redis, broker_url: str
) -> None:
    """It is asked again by the next relay; and one that was started anew is known by its run."""
    through = BrokerPublisher(app, broker_url)
    known = through.broker_epoch()
    assert known == through.broker_epoch()
    broker.delete("unwind:memory")
    assert known is not None
    assert through.broker_epoch() != known
    assert through.broker_epoch().endswith(broker.info("server")["run_id"])  # type: ignore[union-attr]
    assert BrokerPublisher(app, "redis://127.0.0.1:1/0").broker_epoch() is None


@pytest.mark.guarantee("P4")
@pytest.mark.parametrize("rung_before", [False, True])
def test_promises_are_rung_for_at_their_pace_after_the_database_clock_was_set_back(
    ringing: Simulation, broker: redis.Redis, rung_before: bool
) -> None:
    """A day back: what was due is due, and what waited ten seconds waits ten seconds, not a day."""
    start = ringing.clock.instant
    ringing.do("outbox.relay")
    [row] = promised(ringing, 1)
    if rung_before:
        ringing.do("outbox.relay")
        broker.delete("consequences")  # this message alone got lost
    ringing.clock.instant = start - timedelta(days=1)
    ringing.do("outbox.relay")
    assert rung(broker) == ([] if rung_before else [row])
    ringing.clock.instant += outbox.REPUBLISH_INTERVAL
    ringing.do("outbox.relay")
    assert rung(broker) == ([row] if rung_before else [row, row])
    ringing.do("outbox.relay")
    assert len(rung(broker)) == (1 if rung_before else 2)
