"""Tests that the watchdog ends a worker that takes nothing, and leaves busy and idle ones alone."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from celery import Celery

from schedules.routes import HEARTBEAT_QUEUES, queue_of
from tests.e2e.conftest import Run
from tests.e2e.ledger_checks import fetch_one
from tests.e2e.nodes import ProcessNode, wait_until
from tests.plugins.servers import libpq_url


@pytest.fixture
def deaf(tmp_path: Path) -> Path:
    return tmp_path / "deaf"


@pytest.fixture
def impatient(run: Run, deaf: Path) -> ProcessNode:
    return run("impatient", application="tests.e2e.short_timeouts", TEST_DEAF=str(deaf))


def canaries(app: Celery) -> None:
    for task in HEARTBEAT_QUEUES:
        app.send_task(task, queue=queue_of(task), ignore_result=True)


def landed(books: psycopg.Connection) -> set[Any]:
    rows = books.execute("SELECT name FROM unwind.sweeps WHERE name LIKE 'canary.%'").fetchall()
    return {name for (name,) in rows}


@pytest.mark.e2e
def test_a_worker_that_takes_nothing_exits_and_the_next_one_empties_its_queues(
    impatient: ProcessNode, upstream: Celery, books: psycopg.Connection, deaf: Path
) -> None:
    canaries(upstream)
    wait_until(lambda: landed(books) == set(HEARTBEAT_QUEUES), what="the landing of the canaries")
    books.execute("DELETE FROM unwind.sweeps")
    deaf.write_text(str(impatient.pid))
    for _ in range(2):
        canaries(upstream)  # one of them may be on its way to the deaf one already
    assert upstream.control.ping(timeout=1.0), "deaf, but connected"
    assert impatient.wait() == os.EX_SOFTWARE
    assert b"worker_stalled" in impatient.logs()
    wait_until(lambda: not _living(impatient.pid), what="the end of its children")
    assert landed(books) == set()
    impatient.start()
    wait_until(lambda: landed(books) == set(HEARTBEAT_QUEUES), what="the draining")


@pytest.mark.e2e
@pytest.mark.long
def test_a_worker_that_is_busy_idle_or_disconnected_keeps_running(
    impatient: ProcessNode, upstream: Celery, books: psycopg.Connection, broker_url: str, database_url: str
) -> None:
    silence = 2.5  # its watcher ends a silent one after 2 s, one with work in hand after 6
    with psycopg.connect(libpq_url(database_url)) as holder:
        signal.sigtimedwait([], silence)
        holder.execute("LOCK TABLE unwind.sweeps")
        for _ in range(3):
            canaries(upstream)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: fetch_one(books, waiting) == 2, what="both children waiting")
        signal.sigtimedwait([], silence)
        holder.rollback()
    own_db = broker_url.rpartition("/")[2]
    with redis.Redis.from_url(broker_url) as client:
        for _ in range(10):
            for other in client.client_list():  # those of this test alone: the server is shared
                if other["db"] == own_db and int(other["id"]) != client.client_id():
                    client.client_kill_filter(_id=other["id"])
            books.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'unwind' AND datname = current_database()"
            )
            canaries(upstream)
            signal.sigtimedwait([], 0.3)
        wait_until(lambda: client.llen("sweeps") == 0, what="the draining")
    assert impatient.status == "running"


def _living(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.e2e
@pytest.mark.long
def test_a_stuck_beat_exits(run: Run, deaf: Path, broker_url: str) -> None:
    beat = run("beat", application="tests.e2e.short_timeouts", TEST_DEAF=str(deaf))
    with redis.Redis.from_url(broker_url) as client:
        wait_until(lambda: client.llen("sweeps") > 10, what="a few rounds")
        assert beat.status == "running"
        deaf.write_text(str(beat.pid))
        assert beat.wait() == os.EX_SOFTWARE
    assert b"beat_stalled" in beat.logs()
