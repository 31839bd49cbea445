"""Tests of the relay waker."""

from __future__ import annotations

import threading
from itertools import pairwise
from time import monotonic

from workers.lifecycle import MAX_PAUSE, MIN_PAUSE, RelayWaker


def test_first_wakeup_is_immediate_and_later_ones_are_spaced() -> None:
    """P7: one nudge tells of all that is there; pauses double up to the longest while commits keep coming."""
    told, enough = [], threading.Event()

    def publish() -> None:
        told.append(monotonic())
        if len(told) < 6:
            nudge()  # the next commit is there before the pause is over
        else:
            enough.set()

    nudge = RelayWaker(publish)
    nudge()
    assert enough.wait(20)
    nudge.close()
    pauses = [later - earlier for earlier, later in pairwise(told)]
    least = [min(MIN_PAUSE * 2**n, MAX_PAUSE) for n in range(5)]
    assert all(pause >= 0.9 * low for pause, low in zip(pauses, least, strict=True)), pauses
    assert least[-1] == MAX_PAUSE


def test_wakeups_continue_after_a_broker_failure() -> None:
    """P7: what could not be told is found by a tick of the timetable, and the next commit is told of again."""
    told = threading.Semaphore(0)

    def publish() -> None:
        told.release()
        raise ConnectionError("the broker is away")

    nudge = RelayWaker(publish)
    nudge()
    assert told.acquire(timeout=20)
    nudge()
    assert told.acquire(timeout=20), "the thread lives on"
    nudge.close()
