"""Test of the transport's throughput against kombu's own, alternating within one run."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.recording_workers import RecordingWorkers

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(300)]

ROUNDS, MESSAGES, ALONE = 5, 1_500, 20
RATE, WORK, WAIT = 0.95, 1.05, 1.5
"""As fast as kombu's within 5 %; the wait of two milliseconds swings by more than that from one pair to the next."""


@pytest.fixture
def takers(tmp_path: Path, database_url: str, broker_url: str, result_backend: str) -> Iterator[RecordingWorkers]:
    with RecordingWorkers(
        tmp_path, database_url=database_url, broker_url=broker_url, result_backend=result_backend
    ) as those_who_take:
        yield those_who_take


def test_throughput_and_latency_match_kombus_own(takers: RecordingWorkers) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {"ours": [], "stock": []}
    for number in range(ROUNDS):
        for transport in ("ours", "stock") if number % 2 else ("stock", "ours"):
            name = takers.start(concurrency=2, transport=transport)
            found[transport].append(_measured(takers, name))
            takers.kill(name)
    rate, work, wait = (_ratio(found, n) for n in range(3))
    print(f"against kombu: {rate:.2f} of the rate, {work:.2f} of the work, {wait:.2f} of the wait")
    print("\n".join(f"{name}: {[tuple(round(n, 4) for n in one) for one in all_]}" for name, all_ in found.items()))
    assert (rate >= RATE, work <= WORK, wait <= WAIT) == (True, True, True), found


def _ratio(found: dict[str, list[tuple[float, float, float]]], which: int) -> float:
    return statistics.median(
        ours[which] / theirs[which] for ours, theirs in zip(found["ours"], found["stock"], strict=True)
    )


def _measured(takers: RecordingWorkers, name: str) -> tuple[float, float, float]:
    takers.send(20)
    _done(takers)
    waits = []
    for _ in range(ALONE):
        began = time.monotonic()
        takers.send(1)
        _done(takers, 0.0005)
        waits.append(time.monotonic() - began)
    spent, began = takers.processor_time(name), time.monotonic()
    takers.send(MESSAGES)
    _done(takers, 0.01)
    taken = time.monotonic() - began
    return MESSAGES / taken, (takers.processor_time(name) - spent) / MESSAGES, statistics.median(waits)


def _done(takers: RecordingWorkers, look: float = 0.02) -> None:
    while takers.noted_so_far() < len(takers.sent):
        threading.Event().wait(look)
