"""Tests of the main story with real worker, beat and broker, and a client that knows only wire names."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pytest_celery import CeleryTestSetup

from schedules.routes import queue_of
from tests.e2e.ledger_checks import count_rows, fetch_one, order_status, outbox_is_empty, units_in_stock
from tests.e2e.nodes import ProcessNode
from tests.plugins.servers import libpq_url
from tests.waiting import wait_until

Answer = dict[str, Any]


def ask(setup: CeleryTestSetup, task: str, **arguments: Any) -> Answer:
    answer: Answer = setup.app.send_task(task, kwargs=arguments, queue=queue_of(task)).get(timeout=30)
    return answer


def test_main_story_runs_with_real_processes(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, beat: ProcessNode, conn: psycopg.Connection, tmp_path: Path
) -> None:
    unlocked = "SELECT count(unlocked_at) FROM unwind.alerts"
    wait_until(lambda: fetch_one(conn, unlocked) == 2, what="the unlocking")
    assert count_rows(conn, "events", type="npb.unlocked") == 2

    answer = ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="cancel-1001")
    assert (answer["outcome"], answer["effects"]["basis"]) == ("done", "NPB")
    wait_until(lambda: outbox_is_empty(conn), what="the consequences")

    assert order_status(conn, 1001) == "CANCELLED"
    assert units_in_stock(conn) == 90
    assert fetch_one(conn, "SELECT state FROM unwind.removals") == "cancelled"
    assert (
        fetch_one(
            conn, "SELECT count(*) FROM unwind.ledger_lines WHERE order_id = 1001 AND kind IN ('reset', 'credit')"
        )
        == 1
    )
    assert count_rows(conn, "dead_jobs") == 0

    query = (
        "SELECT count(*) FROM unwind.notices n JOIN unwind.members m ON m.member_id = n.recipient "
        "WHERE n.state = 'sent'"
    )
    unlockings = " AND n.event = 'npb_unlocked' AND n.recipient = 'seller'"
    assert fetch_one(conn, query + unlockings) == 2
    emails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (tmp_path / "data" / "mail").rglob("*.eml")
    ]
    lately = " AND n.sent_at >= (SELECT max(ran_at) - interval '10 minutes' FROM unwind.sweeps)"
    since_past = fetch_one(conn, query + lately)
    assert len({str(email["Message-ID"]) for email in emails}) == len(emails) == since_past


@pytest.mark.long
@pytest.mark.guarantee("P2")
def test_message_delivered_three_times_cancels_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection
) -> None:
    answers = [
        ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="r-1") for _ in range(3)
    ]
    assert [answer["outcome"] for answer in answers] == ["done"] * 3
    assert [answer["replayed"] for answer in answers] == [False, True, True]
    assert all({**answer, "replayed": False} == answers[0] for answer in answers)
    assert count_rows(conn, "events", type="orders.cancelled") == 1
    assert count_rows(conn, "stock_moves", kind="returned") == 1
    assert count_rows(conn, "strikes") == 1


@pytest.mark.long
def test_concurrent_workers_cancel_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection
) -> None:
    """R60: the second one is refused."""
    sent = [
        celery_setup.app.send_task(
            "orders.cancel", kwargs={"order_id": 1001, "member_id": "seller", "request_id": f"r-{n}"}, queue="commands"
        )
        for n in range(6)
    ]
    answers = [result.get(timeout=30) for result in sent]
    assert sorted(str(answer["code"]) for answer in answers) == ["ALREADY_CANCELLED"] * 5 + ["None"]
    assert units_in_stock(conn) == 90


@pytest.mark.long
@pytest.mark.guarantee("P1", "P2")
def test_worker_killed_during_a_cancel_cancels_once_after_its_restart(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection, database_url: str
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("SELECT FROM unwind.orders WHERE order_id = 1001 FOR UPDATE")
        sent = celery_setup.app.send_task(
            "orders.cancel", kwargs={"order_id": 1001, "member_id": "seller", "request_id": "killed"}, queue="commands"
        )
        wait_until(lambda: fetch_one(conn, waiting) >= 1, what="the cancel waiting for its order")
        celery_setup.worker.kill()
        holder.rollback()
    assert order_status(conn, 1001) == "NPB"

    celery_setup.worker.container.restart()
    # The message is reclaimed after the visibility timeout; a caller without an answer sends it again.
    answer = ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="killed")
    assert answer["outcome"] == "done"
    ask(celery_setup, "outbox.relay")
    wait_until(lambda: outbox_is_empty(conn), what="the consequences")
    assert count_rows(conn, "events", type="orders.cancelled") == 1
    assert units_in_stock(conn) == 90
    assert fetch_one(conn, "SELECT state FROM unwind.removals") == "cancelled"
    sent.forget()


@pytest.mark.guarantee("P9")
def test_comments_of_a_command_reach_neither_log_nor_events(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection
) -> None:
    answer = ask(celery_setup, "npb.respond", order_id=1001, member_id="buyer", comment="my sister is very ill")
    assert answer["outcome"] == "done"
    log = celery_setup.worker.logs()
    assert "order=1001" in log
    assert "sister" not in log


@pytest.mark.long
def test_concurrent_workers_unlock_an_alert_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection
) -> None:
    """R42: six concurrent sweeps, one event and one email for each alert."""
    sent = [celery_setup.app.send_task("npb.scan_open_alerts", queue="sweeps") for _ in range(6)]
    assert sum(result.get(timeout=30)["effects"]["unlocked"] for result in sent) == 2
    assert count_rows(conn, "events", type="npb.unlocked") == 2
    assert fetch_one(conn, "SELECT count(*) FROM unwind.outbox WHERE key LIKE 'npb_unlocked:%%'") == 2


def test_command_that_always_kills_its_worker_becomes_a_dead_job(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, conn: psycopg.Connection, database_url: str
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    head = psutil.Process(celery_setup.worker.container._container.pid)
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("SELECT FROM unwind.orders WHERE order_id = 1001 FOR UPDATE")
        arguments = {"order_id": 1001, "member_id": "seller", "request_id": "killer", "comment": "private"}
        celery_setup.app.send_task("orders.cancel", kwargs=arguments, queue="commands")

        def parked() -> bool:
            if fetch_one(conn, waiting):
                for child in head.children():
                    child.kill()
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # only this test's: the server is shared
                    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            return bool(count_rows(conn, "dead_jobs"))

        wait_until(parked, what="the parking")
        holder.rollback()
    assert fetch_one(conn, "SELECT task || ' ' || reason FROM unwind.dead_jobs") == "orders.cancel WORKER_DIED"
    assert ask(celery_setup, "orders.cancel", **arguments)["outcome"] == "done"
