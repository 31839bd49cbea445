"""Tests of the main story with real worker, beat and broker, and a client that knows only wire names."""

from __future__ import annotations

import email
import email.policy
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pytest_celery import CeleryTestSetup

from models.alerts import AlertRow
from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.ledger import LedgerLineRow
from models.members import StrikeRow
from models.notices import NoticeRow
from models.outbox import OutboxRow
from models.removals import RemovalRow
from models.stock_moves import StockMoveRow
from models.sweeps import SweepRow
from schedules.routes import queue_of
from tests.e2e.nodes import ProcessNode
from tests.e2e.order_locks import count_lock_waits, locked_order
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until

Answer = dict[str, Any]


def ask(setup: CeleryTestSetup, task: str, **arguments: Any) -> Answer:
    answer: Answer = setup.app.send_task(task, kwargs=arguments, queue=queue_of(task)).get(timeout=30)
    return answer


def test_main_story_runs_with_real_processes(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, beat: ProcessNode, database_rows: DatabaseRows, tmp_path: Path
) -> None:
    wait_until(lambda: database_rows.count(AlertRow, AlertRow.unlocked_at.is_not(None)) == 2, what="the unlocking")
    assert database_rows.count(EventRow, type="npb.unlocked") == 2

    answer = ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="cancel-1001")
    assert (answer["outcome"], answer["effects"]["basis"]) == ("done", "NPB")
    wait_until(database_rows.follow_ups_are_done, what="the consequences")

    assert database_rows.status(1001) == "CANCELLED"
    assert database_rows.units_in_stock() == 90
    assert database_rows.stored_one(RemovalRow).state == "cancelled"
    assert len(database_rows.ledger_lines(LedgerLineRow.kind.in_(["reset", "credit"]), order_id=1001)) == 1
    assert database_rows.count(DeadJobRow) == 0

    assert database_rows.count(NoticeRow, state="sent", event="npb_unlocked", recipient="seller") == 2
    emails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (tmp_path / "data" / "mail").rglob("*.eml")
    ]
    last_run = max(sweep.ran_at for sweep in database_rows.stored(SweepRow))
    since_past = database_rows.count(NoticeRow, NoticeRow.sent_at >= last_run - timedelta(minutes=10), state="sent")
    assert len({str(email["Message-ID"]) for email in emails}) == len(emails) == since_past


@pytest.mark.long
@pytest.mark.guarantee("P2")
def test_message_delivered_three_times_cancels_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, database_rows: DatabaseRows
) -> None:
    answers = [
        ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="r-1") for _ in range(3)
    ]
    assert [answer["outcome"] for answer in answers] == ["done"] * 3
    assert [answer["replayed"] for answer in answers] == [False, True, True]
    assert all({**answer, "replayed": False} == answers[0] for answer in answers)
    assert database_rows.count(EventRow, type="orders.cancelled") == 1
    assert database_rows.count(StockMoveRow, kind="returned") == 1
    assert database_rows.count(StrikeRow) == 1


@pytest.mark.long
def test_concurrent_workers_cancel_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, database_rows: DatabaseRows
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
    assert database_rows.units_in_stock() == 90


@pytest.mark.long
@pytest.mark.guarantee("P1", "P2")
def test_worker_killed_during_a_cancel_cancels_once_after_its_restart(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, database_rows: DatabaseRows, database_url: str
) -> None:
    with locked_order(database_url, 1001):
        sent = celery_setup.app.send_task(
            "orders.cancel", kwargs={"order_id": 1001, "member_id": "seller", "request_id": "killed"}, queue="commands"
        )
        wait_until(lambda: count_lock_waits(database_rows) >= 1, what="the cancel waiting for its order")
        celery_setup.worker.kill()
    assert database_rows.status(1001) == "NPB"

    celery_setup.worker.container.restart()
    # The message is reclaimed after the visibility timeout; a caller without an answer sends it again.
    answer = ask(celery_setup, "orders.cancel", order_id=1001, member_id="seller", request_id="killed")
    assert answer["outcome"] == "done"
    ask(celery_setup, "outbox.relay")
    wait_until(database_rows.follow_ups_are_done, what="the consequences")
    assert database_rows.count(EventRow, type="orders.cancelled") == 1
    assert database_rows.units_in_stock() == 90
    assert database_rows.stored_one(RemovalRow).state == "cancelled"
    sent.forget()


@pytest.mark.guarantee("P9")
def test_comments_of_a_command_reach_neither_log_nor_events(
    seed_two_alerts: None, celery_setup: CeleryTestSetup
) -> None:
    answer = ask(celery_setup, "npb.respond", order_id=1001, member_id="buyer", comment="my sister is very ill")
    assert answer["outcome"] == "done"
    log = celery_setup.worker.logs()
    assert "order=1001" in log
    assert "sister" not in log


@pytest.mark.long
def test_concurrent_workers_unlock_an_alert_once(
    seed_two_alerts: None, celery_setup: CeleryTestSetup, database_rows: DatabaseRows
) -> None:
    """R42: six concurrent sweeps, one event and one email for each alert."""
    sent = [celery_setup.app.send_task("npb.scan_open_alerts", queue="sweeps") for _ in range(6)]
    assert sum(result.get(timeout=30)["effects"]["unlocked"] for result in sent) == 2
    assert database_rows.count(EventRow, type="npb.unlocked") == 2
    assert database_rows.count(OutboxRow, OutboxRow.key.startswith("npb_unlocked:")) == 2


def test_command_that_always_kills_its_worker_becomes_a_dead_job(
    seed_two_alerts: None,
    celery_setup: CeleryTestSetup,
    database_rows: DatabaseRows,
    conn: psycopg.Connection,
    database_url: str,
) -> None:
    head = psutil.Process(celery_setup.worker.container._container.pid)
    with locked_order(database_url, 1001):
        arguments = {"order_id": 1001, "member_id": "seller", "request_id": "killer", "comment": "private"}
        celery_setup.app.send_task("orders.cancel", kwargs=arguments, queue="commands")

        def parked() -> bool:
            if count_lock_waits(database_rows):
                for child in head.children():
                    child.kill()
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # only this test's: the server is shared
                    "WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            return bool(database_rows.dead_jobs())

        wait_until(parked, what="the parking")
    dead_job = database_rows.stored_one(DeadJobRow)
    assert (dead_job.task, dead_job.reason) == ("orders.cancel", "WORKER_DIED")
    assert ask(celery_setup, "orders.cancel", **arguments)["outcome"] == "done"
