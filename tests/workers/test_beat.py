"""Tests of the beat scheduler: stepped clocks, read-only directories, full queues."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
import redis

from schedules.routes import QUEUES
from schedules.timetable import TIMETABLE
from tests.e2e.nodes import CHECKOUT, ProcessNode
from tests.plugins.proxy import Proxy
from tests.waiting import wait_until
from workers.app import UnwindCelery
from workers.beat import MAX_QUEUED_TICKS, MonotonicScheduler

SKEWED = CHECKOUT / "tests" / "e2e" / "skewed_clock"
TICKS_PER_SECOND = sum(1 / entry.every.total_seconds() for entry in TIMETABLE)

Start = Callable[..., ProcessNode]


@pytest.fixture
def start(broker_url: str, result_backend: str, tmp_path: Path) -> Iterator[Start]:
    """Start `celery -A workers.app beat`."""
    started: list[ProcessNode] = []

    def start_beat(cwd: Path = CHECKOUT, **variables: str) -> ProcessNode:
        environment = {
            "CELERY_BROKER_URL": broker_url,
            "CELERY_RESULT_BACKEND": result_backend,
            "UNWIND_DATA": str(tmp_path / "data"),
            "PYTHONPATH": os.pathsep.join((str(SKEWED), str(CHECKOUT))),
            **variables,
        }
        node = ProcessNode("beat", ["celery", "-A", "workers.app", "beat"], environment, tmp_path, cwd)
        started.append(node)
        return node

    yield start_beat
    for node in started:
        node.remove()


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def waiting(broker: redis.Redis) -> int:
    return sum(int(broker.llen(queue)) for queue in QUEUES)


def pace(broker: redis.Redis, seconds: float) -> float:
    """Ticks per second, counted over this time."""
    before, began = waiting(broker), monotonic()
    wait_until(lambda: monotonic() - began >= seconds, what="the end of the count")
    return (waiting(broker) - before) / (monotonic() - began)


@pytest.mark.e2e
@pytest.mark.long
def test_ticks_keep_their_interval_when_the_clock_is_stepped(start: Start, broker: redis.Redis, tmp_path: Path) -> None:
    """No pause after a step back, no burst after a step ahead, and a restart sends every entry at once."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    node = start(SKEW_FILE=str(clock))
    wait_until(lambda: waiting(broker) >= 2 * len(TIMETABLE), what="the first ticks")
    for step in (-3600, -86_400, 3600, 86_400, -86_400):
        clock.write_text(str(step))
        assert TICKS_PER_SECOND / 3 < pace(broker, 3) < TICKS_PER_SECOND * 3, step
    node.remove()
    broker.flushdb()
    node.start()
    wait_until(lambda: waiting(broker) >= len(TIMETABLE), what="all ticks at once after a restart")


@pytest.mark.e2e
def test_beat_runs_in_a_read_only_directory(start: Start, broker: redis.Redis) -> None:
    """It stores nothing, so it needs no `-s`. No user can create files in /proc."""
    start(Path("/proc"), SKEW_SECONDS="0")
    wait_until(lambda: waiting(broker) >= len(TIMETABLE), what="the first ticks")


@pytest.fixture
def scheduler(broker_url: str, result_backend: str) -> Iterator[MonotonicScheduler]:
    """A scheduler whose monotonic clock is set by `scheduler.clock = lambda: …`."""
    with UnwindCelery("clocked", broker=broker_url, backend=result_backend, set_as_current=False, fixups=[]) as app:
        app.conf.beat_schedule = {
            "often": {"task": "outbox.relay", "schedule": timedelta(seconds=1), "options": {"queue": "sweeps"}},
            "rarely": {"task": "bills.issue", "schedule": timedelta(seconds=60), "options": {"queue": "notices"}},
        }
        scheduler = MonotonicScheduler(app)
        scheduler.clock = lambda: 1000.0
        yield scheduler
        scheduler.close()


@pytest.fixture
def restored_handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)


def counts(broker: redis.Redis) -> tuple[int, int]:
    return int(broker.llen("sweeps")), int(broker.llen("notices"))


def test_entries_are_sent_at_start_and_then_at_their_interval(
    scheduler: MonotonicScheduler, broker: redis.Redis
) -> None:
    """`tick` returns the delay until the next entry is due."""
    assert scheduler.tick() == pytest.approx(1)
    assert counts(broker) == (1, 1)
    scheduler.clock = lambda: 1000.4
    assert scheduler.tick() == pytest.approx(0.6)
    scheduler.clock = lambda: 1001.2
    assert scheduler.tick() == pytest.approx(0.8)  # no drift after a late tick
    assert counts(broker) == (2, 1)


def test_overdue_entries_are_sent_once(scheduler: MonotonicScheduler, broker: redis.Redis) -> None:
    """Missed ticks are not sent later: one sweep finds all due rows."""
    scheduler.tick()
    scheduler.clock = lambda: 300_000.0
    assert scheduler.tick() == pytest.approx(1)
    assert scheduler.tick() == pytest.approx(1)
    assert counts(broker) == (2, 2)


def test_full_queue_gets_no_more_ticks(scheduler: MonotonicScheduler, broker: redis.Redis) -> None:
    """After days without workers a queue is bounded; other queues continue, and beat counts as working."""
    broker.rpush("sweeps", *["{}"] * (MAX_QUEUED_TICKS - 1))
    for second in range(4):
        scheduler.clock = lambda now=1000.0 + second * 60: now  # type: ignore[misc]
        before = scheduler.tick_count
        scheduler.tick()
        assert scheduler.tick_count == before + 2
    assert counts(broker) == (MAX_QUEUED_TICKS, 4)


def test_failed_ticks_are_not_counted(scheduler: MonotonicScheduler, broker: redis.Redis) -> None:
    """The watchdog ends a beat that sends nothing."""
    broker.set("sweeps", "not a list")
    scheduler.tick()
    assert scheduler.tick_count == 1
    assert broker.llen("notices") == 1


@pytest.mark.timeout(30)
def test_a_stop_signal_during_a_tick_ends_beat(
    scheduler: MonotonicScheduler, broker_url: str, restored_handler: None
) -> None:
    """Celery's handler closes the scheduler before it raises; the reading in which it does so must not fail instead."""

    def stop(*_: object) -> None:
        scheduler.close()
        raise SystemExit

    signal.signal(signal.SIGALRM, stop)
    with Proxy(urlsplit(broker_url).port or 0) as proxy:
        scheduler.app.conf.broker_url = proxy.url(broker_url)
        scheduler.producer.channel.client.ping()
        proxy.silent = True
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(SystemExit):
            scheduler.tick()
    with pytest.raises(SystemExit):
        scheduler.tick()
