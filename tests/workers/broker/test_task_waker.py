"""Tests of the task waker."""

from __future__ import annotations

import threading
from itertools import pairwise
from queue import Queue
from time import monotonic

import pytest

from workers.broker.wakeups import MAX_WAKEUP_INTERVAL, MIN_WAKEUP_INTERVAL, TaskWaker


def test_first_wakeup_is_immediate_and_later_ones_are_spaced() -> None:
    """P7: one wakeup covers all waiting rows; pauses double while commits keep coming."""
    wakeups, done = [], threading.Event()

    def publish(_task: str) -> None:
        wakeups.append(monotonic())
        if len(wakeups) < 7:
            waker.wake("outbox.relay")  # the next commit happens before the pause is over
        else:
            done.set()

    waker = TaskWaker(publish)
    waker.wake("outbox.relay")
    assert done.wait(20)
    waker.close()
    pauses = [later - earlier for earlier, later in pairwise(wakeups)]
    shortest_pauses = [min(MIN_WAKEUP_INTERVAL * 2**n, MAX_WAKEUP_INTERVAL) for n in range(6)]
    assert all(pause >= 0.9 * low for pause, low in zip(pauses, shortest_pauses, strict=True)), pauses
    assert shortest_pauses[-1] == MAX_WAKEUP_INTERVAL


def test_a_run_that_leaves_work_is_followed_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.broker.wakeups.MIN_WAKEUP_INTERVAL", 600)
    wakeups: Queue[str] = Queue()
    waker = TaskWaker(wakeups.put)
    waker.wake("outbox.relay")
    assert wakeups.get(timeout=20) == "outbox.relay"
    waker.wake_at_once("credits.post_to_next_invoice")
    assert wakeups.get(timeout=20) == "credits.post_to_next_invoice"
    waker.wake("outbox.relay")
    waker.close(20)
    assert wakeups.get(timeout=20) == "outbox.relay"


def test_wakeups_continue_after_a_broker_failure() -> None:
    """P7: a tick of the timetable finds the rows, and the next commit sends a wakeup."""
    wakeups = threading.Semaphore(0)

    def publish(_task: str) -> None:
        wakeups.release()
        raise ConnectionError("the broker is away")

    waker = TaskWaker(publish)
    waker.wake("outbox.relay")
    assert wakeups.acquire(timeout=20)
    waker.wake("outbox.relay")
    assert wakeups.acquire(timeout=20), "the thread lives on"
    waker.close()


def test_every_requested_task_is_woken_once_also_while_closing() -> None:
    """Two requests for one task are one wake-up; a request just before the end is not forgotten."""
    wakeups: list[str] = []
    first, go_on = threading.Event(), threading.Event()

    def publish(task: str) -> None:
        wakeups.append(task)
        first.set()
        go_on.wait(20)

    waker = TaskWaker(publish)
    waker.wake("outbox.relay")
    assert first.wait(20)
    for task in ("notices.deliver", "outbox.relay", "notices.deliver"):
        waker.wake(task)
    go_on.set()
    waker.close(20)
    assert (wakeups[0], sorted(wakeups[1:])) == ("outbox.relay", ["notices.deliver", "outbox.relay"])
