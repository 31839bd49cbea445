"""Tests that what a signal handler does takes no lock, so that another signal may interrupt it at any moment."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from workers.embedded.processes import StopRequest
from workers.monitoring.watchdog import Watchdog
from workers.submissions.listener import Listener
from workers.transport.dead_letters import DeadLetterWriter
from workers.transport.pausing import PauseReader

STOPPED_BY_SIGNALS: dict[str, Callable[[], None]] = {
    "stop request": StopRequest().set,
    "dead letter writer": DeadLetterWriter().stop,
    "pause reader": PauseReader().stop,
    "listener": Listener("postgresql://nowhere", lambda: None).stop,
    "watchdog": Watchdog(
        progress=lambda: 0, count_waiting=lambda: 0, is_busy=lambda: False, on_stall=lambda _waiting: None
    ).stop,
}


@pytest.fixture
def interrupted() -> Callable[[Callable[[], None]], None]:
    def repeat(act: Callable[[], None]) -> None:
        previous = signal.signal(signal.SIGALRM, lambda *_: act())
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        try:
            for _ in range(20_000):
                act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    return repeat


@pytest.mark.parametrize("name", STOPPED_BY_SIGNALS)
def test_a_signal_may_interrupt_the_handling_of_another(
    interrupted: Callable[[Callable[[], None]], None], name: str
) -> None:
    """Two signals within a moment once made a worker wait for itself until it was killed."""
    interrupted(STOPPED_BY_SIGNALS[name])


def test_a_signal_may_interrupt_the_wait_for_it(interrupted: Callable[[Callable[[], None]], None]) -> None:
    request = StopRequest()

    def stop_and_wait() -> None:
        request.set()
        assert request.wait(10)

    interrupted(stop_and_wait)
