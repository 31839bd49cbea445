"""Tests of a full disk, with a PostgreSQL server whose files may not grow beyond a limit.

The kernel refuses to extend a file above RLIMIT_FSIZE, so statements fail where they would on a full disk, with another
SQLSTATE (tests/workers/test_task.py covers that of a full disk).  The WAL has its space in advance.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery

from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.members import StrikeRow
from tests.e2e.conftest import Run
from tests.plugins.servers import FULL_DISK_BYTES, limit_file_size
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until
from workers.embedded.client import embedded_servers, running_servers
from workers.migrate import migrate

pytestmark = [pytest.mark.e2e, pytest.mark.long]

FILL = """
    INSERT INTO unwind.requests (request_id, task, fingerprint, outcome, answer, answered_at)
    SELECT 'filler-' || gen_random_uuid(), 'nothing', '\\x00', 'done',
        jsonb_build_object('filler', repeat(md5(random()::text), %(words)s)), now() FROM generate_series(1, %(rows)s)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "apart"


@pytest.fixture
def database_url(folder: Path) -> Iterator[str]:
    with embedded_servers(folder, durable=False) as urls:
        migrate(urls.database_url)
        yield urls.database_url


def limit_growth(folder: Path, size: int) -> None:
    running_pair = running_servers(folder)
    assert running_pair is not None
    limit_file_size(running_pair.postgres.pid, size)


def file_size(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT pg_relation_size('unwind.requests')").fetchone()
    assert row is not None
    return int(row[0])


def fill(conn: psycopg.Connection[Any], folder: Path) -> str:
    error = ""
    limit_growth(folder, FULL_DISK_BYTES)
    for words, rows in ((50, 500), (10, 1)):  # in the end rows that are smaller than an answer, until no page has room
        try:
            while file_size(conn) <= FULL_DISK_BYTES:
                conn.execute(FILL, {"words": words, "rows": rows})
        except psycopg.Error as full:
            error = str(full)
    return error


@pytest.mark.guarantee("P1", "P4")
def test_command_on_a_full_disk_changes_nothing_and_runs_once_there_is_space(
    seed_two_alerts: None,
    run: Run,
    upstream: Celery,
    conn: psycopg.Connection,
    database_rows: DatabaseRows,
    folder: Path,
) -> None:
    assert "could not extend file" in fill(conn, folder)
    worker = run("worker")
    sent = upstream.send_task(
        "orders.cancel",
        kwargs={"order_id": 1001, "member_id": "seller", "request_id": "in-want-of-room"},
        queue="commands",
    )
    wait_until(lambda: worker.logs().count(b"task_retry") >= 2, what="two tries")
    assert database_rows.count(EventRow, type="orders.cancelled") == 0
    assert database_rows.units_in_stock() == 80
    assert database_rows.count(StrikeRow) + database_rows.count(DeadJobRow) == 0
    limit_growth(folder, resource.RLIM_INFINITY)
    answer = sent.get(timeout=60)
    assert (answer["outcome"], answer["replayed"]) == ("done", False)
    wait_until(
        lambda: database_rows.follow_ups_are_done() or upstream.send_task("outbox.relay", queue="outbox"),
        what="the rest",
    )
    assert database_rows.count(EventRow, type="orders.cancelled") == 1
    assert database_rows.units_in_stock() == 90
    assert worker.status == "running"
