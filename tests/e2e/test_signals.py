"""Tests that a worker ends whenever a signal arrives, also while it handles another one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from tests.plugins.market import Market
from tests.plugins.upstream import START_TIMEOUT_SECONDS, Installation, installation
from tests.waiting import wait_until
from workers.embedded import ServerUrls
from workers.embedded.processes import StopRequest
from workers.local.process_specs import WORKER_GROUPS, worker_program

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def seed(_market: Market) -> None:
    pass


@pytest.fixture
def workers(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with installation(servers, admin, template_database, tmp_path_factory.mktemp("signals"), seed) as running:
        for group in WORKER_GROUPS:
            running.supervisor.start(worker_program(running.settings, running.supervisor, group))
        running.supervisor.wait_ready(START_TIMEOUT_SECONDS)
        yield running


def test_workers_end_although_signals_interrupt_the_handling_of_signals(workers: Installation) -> None:
    """Supervisor, container and terminal may each send one; two within a moment once made a worker wait for itself."""
    first = {group: workers.supervisor.pid(group) for group in WORKER_GROUPS}
    for _ in range(2_000):
        for pid in first.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    # The supervisor starts those that ended again.
    wait_until(lambda: all(workers.supervisor.pid(group) != pid for group, pid in first.items()), 60)


def test_a_stop_request_is_set_by_signals_at_any_moment() -> None:
    request = StopRequest()
    previous = signal.signal(signal.SIGALRM, lambda *_: request.set())
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        for _ in range(20_000):
            request.set()
            assert request.wait(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
