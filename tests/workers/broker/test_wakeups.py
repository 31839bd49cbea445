"""Tests that at most one wake-up of a task waits in the broker, and that none is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from schedules.routes import queue_of
from tasks import outbox
from tasks.process_services import services
from workers import lifecycle
from workers.app import app
from workers.broker.wakeups import KEY_EXPIRES_SECONDS, KEY_PREFIX, WOKEN_TASKS, Wakeups
from workers.simulation.engine import Simulation

RELAY = "outbox.relay"
KEY = KEY_PREFIX + RELAY


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def wakeups(environment: Simulation, broker_url: str) -> Iterator[Wakeups]:
    sender = Wakeups(app, broker_url)
    yield sender
    sender.close()


def waiting(broker: redis.Redis, task: str = RELAY) -> int:
    return int(broker.llen(queue_of(task)))


def test_thousands_of_commits_in_many_processes_leave_one_wakeup(
    wakeups: Wakeups, broker: redis.Redis, broker_url: str
) -> None:
    """P7: single commands once filled 95 % of the sweeps' queue with wake-ups of the relay."""
    senders = [wakeups, *(Wakeups(app, broker_url) for _ in range(3))]

    def commit(sender: Wakeups) -> None:
        for _ in range(500):
            sender.send(RELAY)

    threads = [threading.Thread(target=commit, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert waiting(broker) == 1
    assert 0 < broker.ttl(KEY) <= KEY_EXPIRES_SECONDS
    assert waiting(broker, "npb.scan_open_alerts") == 0, "the relay is not in the line of the scans"


@pytest.mark.parametrize("task", sorted(WOKEN_TASKS))
def test_each_task_has_a_wakeup_of_its_own(wakeups: Wakeups, broker: redis.Redis, task: str) -> None:
    wakeups.send("outbox.relay")
    wakeups.send(task)
    wakeups.send(task)
    assert waiting(broker, task) == 1


def test_the_key_is_deleted_before_the_relay_reads(
    wakeups: Wakeups, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a commit during the run would find the key, send nothing, and wait for the next tick."""
    seen: list[int] = []

    class Recorder:
        def publish(self, task: str, rows: object) -> None: ...

        def broker_epoch(self) -> None:
            seen.append(broker.exists(KEY))

    monkeypatch.setattr(lifecycle, "_process_wakeups", wakeups)
    wakeups.send(RELAY)
    services.publisher = Recorder()
    try:
        outbox.relay.apply().get()
    finally:
        services.publisher = None
    assert seen == [0]
    wakeups.send(RELAY)
    assert waiting(broker) == 2


def test_a_wakeup_that_was_not_sent_does_not_keep_the_next_one_back(
    wakeups: Wakeups, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patches:
        patches.setattr(app, "send_task", refuse)
        with pytest.raises(ConnectionError):
            wakeups.send(RELAY)
    assert not broker.exists(KEY)
    wakeups.send(RELAY)
    assert waiting(broker) == 1


def test_without_a_broker_a_run_begins_and_a_wakeup_fails() -> None:
    """The waker logs the failure, and the timetable's tick does the same work."""
    away = Wakeups(app, "redis://127.0.0.1:1/0")
    away.begin(RELAY)
    with pytest.raises(redis.ConnectionError):
        away.send(RELAY)
