"""Tests that the watchdog ends a worker that takes nothing, and leaves busy and idle ones alone."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from celery import Celery

from models.sweeps import SweepRow
from schedules.routes import HEARTBEAT, QUEUES
from tasks.queue_heartbeat import heartbeat_run
from tests.e2e.conftest import Run
from tests.e2e.nodes import ProcessNode
from tests.e2e.order_locks import count_lock_waits
from tests.plugins.servers import libpq_url
from tests.plugins.stored_rows import DatabaseRows, StoredRows
from tests.waiting import wait_until


@pytest.fixture
def stalled_marker(tmp_path: Path) -> Path:
    return tmp_path / "stalled"


@pytest.fixture
def start_with_short_timeouts(run: Run, stalled_marker: Path) -> ProcessNode:
    return run("short-timeouts", application="tests.e2e.short_timeouts", TEST_STALLED_PID_FILE=str(stalled_marker))


def send_heartbeats(app: Celery) -> None:
    for queue in QUEUES:
        app.send_task(HEARTBEAT, queue=queue, ignore_result=True)


def received_heartbeats(database_rows: StoredRows) -> set[str]:
    return {sweep.name for sweep in database_rows.stored(SweepRow, SweepRow.name.startswith("heartbeat."))}


@pytest.mark.e2e
def test_worker_that_takes_nothing_exits_and_the_next_one_empties_its_queues(
    start_with_short_timeouts: ProcessNode,
    upstream: Celery,
    conn: psycopg.Connection,
    database_rows: DatabaseRows,
    stalled_marker: Path,
) -> None:
    send_heartbeats(upstream)
    wait_until(
        lambda: received_heartbeats(database_rows) == set(map(heartbeat_run, QUEUES)),
        what="the heartbeats of all queues",
    )
    conn.execute("DELETE FROM unwind.sweeps")
    stalled_marker.write_text(str(start_with_short_timeouts.pid))
    for _ in range(2):
        send_heartbeats(upstream)  # the stalled worker may have taken one already
    assert upstream.control.ping(timeout=1.0), "stalled, but connected"
    assert start_with_short_timeouts.wait() == os.EX_SOFTWARE
    assert b"worker_stalled" in start_with_short_timeouts.logs()
    wait_until(lambda: not _living(start_with_short_timeouts.pid), what="the end of its children")
    assert received_heartbeats(database_rows) == set()
    start_with_short_timeouts.start()
    wait_until(lambda: received_heartbeats(database_rows) == set(map(heartbeat_run, QUEUES)), what="the draining")


@pytest.mark.e2e
@pytest.mark.long
def test_busy_idle_or_disconnected_worker_keeps_running(
    start_with_short_timeouts: ProcessNode,
    upstream: Celery,
    conn: psycopg.Connection,
    database_rows: DatabaseRows,
    broker_url: str,
    database_url: str,
) -> None:
    silence = 2.5  # the watchdog ends a silent worker after 2 s, a busy one after 6 s
    with psycopg.connect(libpq_url(database_url)) as holder:
        signal.sigtimedwait([], silence)
        holder.execute("LOCK TABLE unwind.sweeps")
        for _ in range(3):
            send_heartbeats(upstream)
        wait_until(lambda: count_lock_waits(database_rows) == 2, what="both children waiting")
        signal.sigtimedwait([], silence)
        holder.rollback()
    own_db = broker_url.rpartition("/")[2]
    with redis.Redis.from_url(broker_url) as client:
        for _ in range(10):
            for connection_info in client.client_list():  # only this test's connections: the server is shared
                if connection_info["db"] == own_db and int(connection_info["id"]) != client.client_id():
                    client.client_kill_filter(_id=connection_info["id"])
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'unwind' AND datname = current_database()"
            )
            send_heartbeats(upstream)
            signal.sigtimedwait([], 0.3)
        wait_until(lambda: client.llen("sweeps") == 0, what="the draining")
    assert start_with_short_timeouts.status == "running"


def _living(group: int) -> list[int]:
    processes = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                processes.append(process.pid)
    return processes


@pytest.mark.e2e
@pytest.mark.long
def test_stuck_beat_exits(run: Run, stalled_marker: Path, broker_url: str) -> None:
    beat = run("beat", application="tests.e2e.short_timeouts", TEST_STALLED_PID_FILE=str(stalled_marker))
    with redis.Redis.from_url(broker_url) as client:
        wait_until(lambda: client.llen("sweeps") > 10, what="a few rounds")
        assert beat.status == "running"
        stalled_marker.write_text(str(beat.pid))
        assert beat.wait() == os.EX_SOFTWARE
    assert b"beat_stalled" in beat.logs()
