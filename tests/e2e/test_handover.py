"""Tests that no message is lost between broker and worker, and that these tests would notice a loss."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.recording_workers import RecordingWorkers
from tests.plugins.proxy import Cut, Proxy
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SOON = 10.0
"""Seconds within which everything must be done after a connection was cut."""


@pytest.fixture
def workers(tmp_path: Path, database_url: str, broker_url: str, result_backend: str) -> Iterator[RecordingWorkers]:
    with RecordingWorkers(
        tmp_path, database_url=database_url, broker_url=broker_url, result_backend=result_backend
    ) as recording_workers:
        yield recording_workers


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    port = int(broker_url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as between:
        yield between


def _cut(proxy: Proxy, workers: RecordingWorkers, cut: Cut) -> None:
    proxy.cut(cut)
    workers.send(3)
    assert cut.happened.wait(SOON), cut
    workers.wait_drained(SOON)
    assert workers.lost() == set(), cut


@pytest.mark.guarantee("P1")
def test_connection_cut_at_any_command_loses_and_stalls_nothing(workers: RecordingWorkers, proxy: Proxy) -> None:
    workers.start(concurrency=1, at=proxy.url)
    number = len(workers.sent) + 1
    _cut(proxy, workers, Cut(requested=b"BLMOVE"))
    number = len(workers.sent) + 1
    _cut(proxy, workers, Cut(replied=f"effect-{number}-".encode()))
    _cut(proxy, workers, Cut(requested=b"ZADD"))
    _cut(proxy, workers, Cut(after_asking=b"ZADD"))
    _cut(proxy, workers, Cut(requested=b"ZREM"))
    _cut(proxy, workers, Cut(after_asking=b"ZREM"))
    _cut(proxy, workers, Cut(requested=b"celery-task-meta-"))
    _cut(proxy, workers, Cut(after_asking=b"celery-task-meta-"))
    assert all(times <= 2 for times in workers.effect_counts().values())


@pytest.mark.long
def test_worker_with_kombus_acknowledgement_stalls(workers: RecordingWorkers, proxy: Proxy) -> None:
    workers.start(concurrency=1, transport="stock ack", at=proxy.url)
    cut = proxy.cut(Cut(requested=b"ZREM"))
    workers.send(1)
    assert cut.happened.wait(SOON)
    waiting = workers.send(2)
    with pytest.raises(AssertionError, match="in the queue"):
        workers.wait_drained(3)
    assert not set(waiting) & set(workers.effect_counts())


@pytest.mark.long
def test_kombus_own_transport_loses_a_message(workers: RecordingWorkers, proxy: Proxy) -> None:
    workers.start(concurrency=1, transport="stock", at=proxy.url)
    cut = proxy.cut(Cut(replied=b"effect-1-"))
    workers.send(1)
    assert cut.happened.wait(SOON)
    later = set(workers.send(3))
    wait_until(lambda: later <= set(workers.effect_counts()), SOON, what="processing what was sent after the cut")
    workers.wait_drained(SOON)
    assert workers.lost() == {1}


def _kill_under_load(workers: RecordingWorkers, kills: int, rate: int, transport: str = "ours") -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    done = threading.Event()

    def run_and_kill(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(kills // 2):
            name = workers.start(concurrency=2, transport=transport)
            done.wait(chance.uniform(0.05, 0.6))
            workers.kill(name)

    with ThreadPoolExecutor(3) as threads:
        sending = threads.submit(workers.send_for, done, rate)
        lives = [threads.submit(run_and_kill, number) for number in range(2)]
        try:
            for life in lives:
                life.result()
        finally:
            done.set()
        sending.result()
    workers.set_aside(but=300)
    workers.start(concurrency=2, transport=transport)


@pytest.mark.guarantee("P1")
def test_workers_killed_under_load_lose_nothing(workers: RecordingWorkers) -> None:
    _kill_under_load(workers, kills=6, rate=100)
    workers.wait_drained(30)
    _no_message_is_lost(workers, kills=6)


@pytest.mark.long
def test_sixty_workers_killed_under_load_lose_nothing(workers: RecordingWorkers) -> None:
    _kill_under_load(workers, kills=60, rate=250)
    workers.wait_drained(60)
    assert len(workers.effect_counts()) > 300
    _no_message_is_lost(workers, kills=60)


def _no_message_is_lost(workers: RecordingWorkers, kills: int) -> None:
    assert workers.lost() == set(), workers.describe_message_locations()
    twice = sum(times - 1 for times in workers.effect_counts().values())
    assert twice <= kills * 4, "each kill repeats what two children and two queue readers held, and no more"


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_many_cut_connections_lose_and_stall_nothing(workers: RecordingWorkers, seed: int) -> None:
    chance, done = random.Random(seed), threading.Event()
    for _ in range(2):
        workers.start(concurrency=2)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(workers.send_for, done, 100)
        cuts = 0
        for _ in range(45):
            cuts += workers.cut_connections()
            done.wait(chance.uniform(0.05, 0.4))
        done.set()
        sending.result()
    assert cuts > 100
    workers.set_aside(but=300)
    workers.wait_drained(30)
    assert workers.lost() == set(), workers.describe_message_locations()
