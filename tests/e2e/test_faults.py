"""Tests of single faults: killed and stopped workers, wrong clocks, duplicate beats, an emptied broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery

from models.alerts import AlertRow
from models.events import EventRow
from models.members import StrikeRow
from models.notices import NoticeRow
from models.stock_moves import StockMoveRow
from tests.e2e.conftest import Run
from tests.e2e.order_locks import count_lock_waits, locked_order
from tests.plugins.servers import libpq_url
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until
from workers import local
from workers.local.process_specs import WORKER_GROUPS
from workers.mail.smtp import SmtpMailer

pytestmark = pytest.mark.e2e

SKEWED = Path(__file__).parent / "skewed_clock"


def cancel(upstream: Celery, order_id: int = 1001) -> Any:
    arguments = {"order_id": order_id, "member_id": "seller", "request_id": f"cancel-{order_id}"}
    return upstream.send_task("orders.cancel", kwargs=arguments, queue="commands")


@pytest.mark.guarantee("P1")
def test_command_of_a_killed_worker_is_answered_within_a_minute(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows, database_url: str
) -> None:
    first = run("first")
    with locked_order(database_url, 1001):
        sent = cancel(upstream)
        wait_until(lambda: count_lock_waits(database_rows) >= 1, what="the cancel waiting for its order")
        first.kill()
    run("second")
    answer = sent.get(timeout=60)
    assert (answer["outcome"], answer["replayed"]) == ("done", False)
    assert database_rows.count(EventRow, type="orders.cancelled") == 1


@pytest.mark.long
@pytest.mark.guarantee("P2")
def test_worker_stopped_beyond_the_visibility_timeout_writes_nothing_twice(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows, database_url: str
) -> None:
    paused = run("paused", application="tests.e2e.short_timeouts")
    with locked_order(database_url, 1001):
        sent = cancel(upstream)
        wait_until(lambda: count_lock_waits(database_rows) >= 1, what="the cancel waiting for its order")
        os.killpg(paused.pid, signal.SIGSTOP)  # it gets the lock when this block ends
    run("other", application="tests.e2e.short_timeouts")
    answer = sent.get(timeout=40)
    assert (answer["outcome"], answer["replayed"]) == ("done", False)
    os.killpg(paused.pid, signal.SIGCONT)
    again = cancel(upstream).get(timeout=30)
    assert (again["outcome"], again["replayed"]) == ("done", True)
    wait_until(
        lambda: database_rows.follow_ups_are_done() or upstream.send_task("outbox.relay", queue="outbox"),
        what="the rest",
    )
    assert database_rows.count(EventRow, type="orders.cancelled") == 1
    assert database_rows.count(StockMoveRow, kind="returned") == 1
    assert database_rows.count(StrikeRow) == 1
    assert database_rows.units_in_stock() == 90
    assert paused.status == "running"


@pytest.mark.guarantee("P2", "P3")
@pytest.mark.long
def test_two_beats_unlock_once_and_on_time_while_one_is_killed(
    seed_two_alerts: None, run: Run, database_rows: DatabaseRows, tmp_path: Path
) -> None:
    run("worker")
    steady = run("beat-steady")
    ready = tmp_path / "shaky-ready"
    for _ in range(3):
        shaky = run("beat-shaky", **{local.READY_FILE_ENV: str(ready)})
        wait_until(ready.exists, what="the reading of the timetable")
        shaky.kill()
        ready.unlink()
    wait_until(lambda: database_rows.count(AlertRow, AlertRow.unlocked_at.is_not(None)) == 2, what="the unlocking")
    wait_until(database_rows.follow_ups_are_done, what="the outbox")
    assert database_rows.count(EventRow, type="npb.unlocked") == 2
    assert database_rows.count(NoticeRow, event="npb_unlocked", recipient="seller") == 2
    assert steady.status == "running"


@pytest.mark.guarantee("P1")
@pytest.mark.long
def test_work_that_the_broker_lost_is_republished(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows, broker_url: str, database_url: str
) -> None:
    run("worker")
    run("beat")
    with psycopg.connect(libpq_url(database_url)) as holder, redis.Redis.from_url(broker_url) as broker:
        holder.execute("LOCK TABLE unwind.notices IN EXCLUSIVE MODE")
        assert cancel(upstream).get(timeout=30)["outcome"] == "done"
        wait_until(lambda: count_lock_waits(database_rows) >= 1, what="a working consumer")
        broker.flushdb()
        holder.rollback()
    wait_until(database_rows.follow_ups_are_done, 15, what="the rest")


@pytest.mark.long
@pytest.mark.parametrize("skew", [-1800, 1800])
def test_worker_with_a_wrong_clock_decides_like_others(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows, conn: psycopg.Connection, skew: int
) -> None:
    skewed = {"PYTHONPATH": str(SKEWED), "SKEW_SECONDS": str(skew)}
    script = "import time, datetime as d; print(time.time(), d.datetime.now(d.UTC).timestamp())"
    output = subprocess.run(
        [sys.executable, "-c", script], env=skewed, capture_output=True, text=True, check=True
    ).stdout
    real = database_rows.server_time().timestamp()
    assert all(abs(float(clock_value) - real - skew) < 60 for clock_value in output.split()), "the shim works"
    conn.execute(
        "UPDATE unwind.alerts SET unlocks_at = clock_timestamp() + interval '10 minutes' WHERE order_id = 1002"
    )
    run("worker", **skewed)
    run("beat")
    wait_until(lambda: database_rows.count(AlertRow, AlertRow.unlocked_at.is_not(None)) == 1, what="the unlocking")
    early = cancel(upstream, 1002).get(timeout=30)
    assert (early["outcome"], early["code"]) == ("refused", "TOO_EARLY")
    assert cancel(upstream).get(timeout=30)["outcome"] == "done"
    wait_until(database_rows.follow_ups_are_done, what="the consequences")
    now = database_rows.server_time()
    lately = EventRow.at.between(now - timedelta(minutes=5), now)
    assert database_rows.count(EventRow, lately, EventRow.type.in_(["npb.unlocked", "orders.cancelled"])) == 2


@pytest.mark.guarantee("P8")
@pytest.mark.long
def test_hanging_mail_server_delays_no_cancellation(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows
) -> None:
    """R102: the server accepts the connection and says nothing; only the delivery waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mail = {"UNWIND_SMTP_URL": f"smtp://127.0.0.1:{silent.getsockname()[1]}"}
        for group, queues in WORKER_GROUPS.items():
            run(group, "-Q", ",".join(queues), **mail)
        assert cancel(upstream, 1001).get(timeout=30)["outcome"] == "done"
        silent.settimeout(30)
        caller, _ = silent.accept()  # a delivery waits for the greeting
        waiting = monotonic()
        assert cancel(upstream, 1002).get(timeout=30)["outcome"] == "done"
        assert monotonic() - waiting < SmtpMailer.RESPONSE_TIMEOUT_SECONDS / 2
        caller.close()
    assert database_rows.count(EventRow, type="orders.cancelled") == 2
    assert database_rows.count(NoticeRow, state="parked") == 0
