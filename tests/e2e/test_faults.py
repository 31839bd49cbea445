"""Tests of single faults: killed and stopped workers, wrong clocks, duplicate beats, an emptied broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery

from tests.e2e.conftest import Run
from tests.e2e.ledger_checks import count_rows, fetch_one, outbox_is_empty, units_in_stock
from tests.plugins.servers import libpq_url
from tests.waiting import wait_until
from workers import local
from workers.local.process_specs import WORKER_GROUPS
from workers.mail.smtp import SmtpMailer

pytestmark = pytest.mark.e2e

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
CANCELLED = "SELECT count(*) FROM unwind.events WHERE type = 'orders.cancelled'"
SKEWED = Path(__file__).parent / "skewed_clock"


def cancel(upstream: Celery, order_id: int = 1001) -> Any:
    arguments = {"order_id": order_id, "member_id": "seller", "request_id": f"cancel-{order_id}"}
    return upstream.send_task("orders.cancel", kwargs=arguments, queue="commands")


@pytest.mark.guarantee("P1")
def test_command_of_a_killed_worker_is_answered_within_a_minute(
    seed_two_alerts: None, run: Run, upstream: Celery, conn: psycopg.Connection, database_url: str
) -> None:
    first = run("first")
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("SELECT FROM unwind.orders WHERE order_id = 1001 FOR UPDATE")
        sent = cancel(upstream)
        wait_until(lambda: fetch_one(conn, LOCKED) >= 1, what="the cancel waiting for its order")
        first.kill()
        holder.rollback()
    run("second")
    answer = sent.get(timeout=60)
    assert (answer["outcome"], answer["replayed"]) == ("done", False)
    assert fetch_one(conn, CANCELLED) == 1


@pytest.mark.long
@pytest.mark.guarantee("P2")
def test_worker_stopped_beyond_the_visibility_timeout_writes_nothing_twice(
    seed_two_alerts: None, run: Run, upstream: Celery, conn: psycopg.Connection, database_url: str
) -> None:
    paused = run("paused", application="tests.e2e.short_timeouts")
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("SELECT FROM unwind.orders WHERE order_id = 1001 FOR UPDATE")
        sent = cancel(upstream)
        wait_until(lambda: fetch_one(conn, LOCKED) >= 1, what="the cancel waiting for its order")
        os.killpg(paused.pid, signal.SIGSTOP)
        holder.rollback()  # the paused worker holds the lock
    run("other", application="tests.e2e.short_timeouts")
    answer = sent.get(timeout=40)
    assert (answer["outcome"], answer["replayed"]) == ("done", False)
    os.killpg(paused.pid, signal.SIGCONT)
    again = cancel(upstream).get(timeout=30)
    assert (again["outcome"], again["replayed"]) == ("done", True)
    wait_until(lambda: outbox_is_empty(conn) or upstream.send_task("outbox.relay", queue="outbox"), what="the rest")
    assert fetch_one(conn, CANCELLED) == 1
    assert count_rows(conn, "stock_moves", kind="returned") == 1
    assert count_rows(conn, "strikes") == 1
    assert units_in_stock(conn) == 90
    assert paused.status == "running"


@pytest.mark.guarantee("P2", "P3")
@pytest.mark.long
def test_two_beats_unlock_once_and_on_time_while_one_is_killed(
    seed_two_alerts: None, run: Run, conn: psycopg.Connection, tmp_path: Path
) -> None:
    run("worker")
    steady = run("beat-steady")
    ready = tmp_path / "shaky-ready"
    for _ in range(3):
        shaky = run("beat-shaky", **{local.READY_FILE_ENV: str(ready)})
        wait_until(ready.exists, what="the reading of the timetable")
        shaky.kill()
        ready.unlink()
    wait_until(lambda: fetch_one(conn, "SELECT count(unlocked_at) FROM unwind.alerts") == 2, what="the unlocking")
    wait_until(lambda: outbox_is_empty(conn), what="the outbox")
    assert count_rows(conn, "events", type="npb.unlocked") == 2
    query = "SELECT count(*) FROM unwind.notices WHERE event = 'npb_unlocked' AND recipient = 'seller'"
    assert fetch_one(conn, query) == 2
    assert steady.status == "running"


@pytest.mark.guarantee("P1")
@pytest.mark.long
def test_work_that_the_broker_lost_is_republished(
    seed_two_alerts: None, run: Run, upstream: Celery, conn: psycopg.Connection, broker_url: str, database_url: str
) -> None:
    run("worker")
    run("beat")
    with psycopg.connect(libpq_url(database_url)) as holder, redis.Redis.from_url(broker_url) as broker:
        holder.execute("LOCK TABLE unwind.notices IN EXCLUSIVE MODE")
        assert cancel(upstream).get(timeout=30)["outcome"] == "done"
        wait_until(lambda: fetch_one(conn, LOCKED) >= 1, what="a working consumer")
        broker.flushdb()
        holder.rollback()
    wait_until(lambda: outbox_is_empty(conn), 15, what="the rest")


@pytest.mark.long
@pytest.mark.parametrize("skew", [-1800, 1800])
def test_worker_with_a_wrong_clock_decides_like_others(
    seed_two_alerts: None, run: Run, upstream: Celery, conn: psycopg.Connection, skew: int
) -> None:
    skewed = {"PYTHONPATH": str(SKEWED), "SKEW_SECONDS": str(skew)}
    script = "import time, datetime as d; print(time.time(), d.datetime.now(d.UTC).timestamp())"
    output = subprocess.run(
        [sys.executable, "-c", script], env=skewed, capture_output=True, text=True, check=True
    ).stdout
    real: float = fetch_one(conn, "SELECT extract(epoch FROM clock_timestamp())::float8")
    assert all(abs(float(clock_value) - real - skew) < 60 for clock_value in output.split()), "the shim works"
    conn.execute(
        "UPDATE unwind.alerts SET unlocks_at = clock_timestamp() + interval '10 minutes' WHERE order_id = 1002"
    )
    run("worker", **skewed)
    run("beat")
    wait_until(lambda: fetch_one(conn, "SELECT count(unlocked_at) FROM unwind.alerts") == 1, what="the unlocking")
    early = cancel(upstream, 1002).get(timeout=30)
    assert (early["outcome"], early["code"]) == ("refused", "TOO_EARLY")
    assert cancel(upstream).get(timeout=30)["outcome"] == "done"
    wait_until(lambda: outbox_is_empty(conn), what="the consequences")
    query = "SELECT count(*) FROM unwind.events WHERE type IN ('npb.unlocked', 'orders.cancelled')"
    assert (
        fetch_one(conn, f"{query} AND at <= clock_timestamp() AND at > clock_timestamp() - interval '5 minutes'") == 2
    )


@pytest.mark.guarantee("P8")
@pytest.mark.long
def test_hanging_mail_server_delays_no_cancellation(
    seed_two_alerts: None, run: Run, upstream: Celery, conn: psycopg.Connection
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
    assert fetch_one(conn, CANCELLED) == 2
    assert count_rows(conn, "notices", state="parked") == 0
