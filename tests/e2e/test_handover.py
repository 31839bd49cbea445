"""Tests that no message is lost between broker and worker, and that these tests would notice a loss."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.plugins.proxy import Cut, Proxy
from tests.plugins.recording_workers import RecordingWorkers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SOON = 10.0
"""Seconds within which everything must be done after a connection was cut."""


@pytest.fixture
def takers(tmp_path: Path, database_url: str, broker_url: str, result_backend: str) -> Iterator[RecordingWorkers]:
    with RecordingWorkers(
        tmp_path, database_url=database_url, broker_url=broker_url, result_backend=result_backend
    ) as those_who_take:
        yield those_who_take


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    port = int(broker_url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as between:
        yield between


def _cut(proxy: Proxy, takers: RecordingWorkers, cut: Cut) -> None:
    proxy.cut(cut)
    takers.send(3)
    assert cut.happened.wait(SOON), cut
    takers.wait_drained(SOON)
    assert takers.lost() == set(), cut


@pytest.mark.guarantee("P1")
def test_a_connection_cut_at_any_command_loses_and_stalls_nothing(takers: RecordingWorkers, proxy: Proxy) -> None:
    takers.start(concurrency=1, at=proxy.url)
    number = len(takers.sent) + 1
    _cut(proxy, takers, Cut(asked=b"BLMOVE"))
    number = len(takers.sent) + 1
    _cut(proxy, takers, Cut(replied=f"effect-{number}-".encode()))
    _cut(proxy, takers, Cut(asked=b"ZADD"))
    _cut(proxy, takers, Cut(after_asking=b"ZADD"))
    _cut(proxy, takers, Cut(asked=b"ZREM"))
    _cut(proxy, takers, Cut(after_asking=b"ZREM"))
    _cut(proxy, takers, Cut(asked=b"celery-task-meta-"))
    _cut(proxy, takers, Cut(after_asking=b"celery-task-meta-"))
    assert all(times <= 2 for times in takers.noted().values())


def test_with_kombus_own_acknowledgement_a_worker_stalls(takers: RecordingWorkers, proxy: Proxy) -> None:
    takers.start(concurrency=1, transport="stock ack", at=proxy.url)
    cut = proxy.cut(Cut(asked=b"ZREM"))
    takers.send(1)
    assert cut.happened.wait(SOON)
    waiting = takers.send(2)
    with pytest.raises(AssertionError, match="in the queue"):
        takers.wait_drained(3)
    assert not set(waiting) & set(takers.noted())


def test_with_kombus_own_transport_a_message_is_lost(takers: RecordingWorkers, proxy: Proxy) -> None:
    takers.start(concurrency=1, transport="stock", at=proxy.url)
    cut = proxy.cut(Cut(replied=b"effect-1-"))
    takers.send(1)
    assert cut.happened.wait(SOON)
    takers.send(3)
    takers.wait_drained(SOON)
    assert takers.lost() == {1}


def _kill_under_load(takers: RecordingWorkers, kills: int, rate: int, transport: str = "ours") -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    done = threading.Event()

    def live_and_die(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(kills // 2):
            name = takers.start(concurrency=2, transport=transport)
            done.wait(chance.uniform(0.05, 0.6))
            takers.kill(name)

    with ThreadPoolExecutor(3) as threads:
        sending = threads.submit(takers.send_for, done, rate)
        lives = [threads.submit(live_and_die, number) for number in range(2)]
        try:
            for life in lives:
                life.result()
        finally:
            done.set()
        sending.result()
    takers.set_aside(but=300)
    takers.start(concurrency=2, transport=transport)


@pytest.mark.guarantee("P1")
def test_whole_workers_killed_under_load_lose_nothing(takers: RecordingWorkers) -> None:
    _kill_under_load(takers, kills=6, rate=100)
    takers.wait_drained(30)
    _none_is_lost(takers, kills=6)


@pytest.mark.long
def test_sixty_workers_killed_under_load_lose_nothing(takers: RecordingWorkers) -> None:
    _kill_under_load(takers, kills=60, rate=250)
    takers.wait_drained(60)
    assert len(takers.noted()) > 300
    _none_is_lost(takers, kills=60)


def _none_is_lost(takers: RecordingWorkers, kills: int) -> None:
    assert takers.lost() == set(), takers.whereabouts()
    twice = sum(times - 1 for times in takers.noted().values())
    assert twice <= kills * 4, "each kill repeats what two children and two hands held, and no more"


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_cut_connections_loses_and_stalls_nothing(takers: RecordingWorkers, seed: int) -> None:
    chance, done = random.Random(seed), threading.Event()
    for _ in range(2):
        takers.start(concurrency=2)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(takers.send_for, done, 100)
        cuts = 0
        for _ in range(45):
            cuts += takers.cut_connections()
            done.wait(chance.uniform(0.05, 0.4))
        done.set()
        sending.result()
    assert cuts > 100
    takers.set_aside(but=300)
    takers.wait_drained(30)
    assert takers.lost() == set(), takers.whereabouts()
