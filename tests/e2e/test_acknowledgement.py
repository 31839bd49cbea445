"""Tests that a message is acknowledged only when its answer, dead job or dead letter is durable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import psycopg
import pytest
import redis
from celery import Celery
from celery.bin.worker import WorkersPool, worker
from celery.concurrency.thread import TaskPool as ThreadPool

from models.dead_jobs import DeadJobRow
from models.dead_letters import DeadLetterRow
from models.stored_answers import RequestRow
from tests.e2e.conftest import Run, running_nodes
from tests.e2e.failing_steps import CHECKING, CONNECTING, DYING, FAILING, LOST, STEPS
from tests.e2e.nodes import CHECKOUT, ProcessNode
from tests.plugins.servers import count_in_flight, libpq_url
from tests.plugins.stored_rows import DatabaseRows
from tests.plugins.upstream import Installation, temporary_installation
from tests.waiting import wait_until
from tests.workers.transport.hostile_messages import EMBED, message
from workers.app import app, worker_pool_path
from workers.embedded.client import ServerUrls
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor.broker import inspect_worker_pools
from workers.task import MAX_RETRIES

pytestmark = [pytest.mark.e2e, pytest.mark.long]

POISON = """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$;
    CREATE TRIGGER poison BEFORE INSERT ON unwind.members FOR EACH ROW EXECUTE FUNCTION poison()
"""
READ_ONLY = """
    CREATE FUNCTION read_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'cannot execute in a read-only transaction' USING ERRCODE = '25006'; END $$;
    CREATE TRIGGER read_only BEFORE INSERT ON unwind.dead_jobs FOR EACH STATEMENT EXECUTE FUNCTION read_only()
"""


@pytest.fixture
def poison(database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url)) as owner:
        owner.execute(POISON)


@pytest.fixture
def broker(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def send_last(broker: Any, retries: int = MAX_RETRIES, request_id: str = "record-1") -> None:
    arguments = {"member_id": "poison", "handle": "Poison", "email": "p@example.org", "request_id": request_id}
    headers = {"task": "members.record", "id": f"last-{retries}-{request_id}", "retries": retries}
    broker.lpush("commands", json.dumps(message([[], arguments, EMBED], headers=headers)))


def is_queued(broker: Any) -> bool:
    return bool(broker.llen("commands") or count_in_flight(broker))


def wait_for_retries(node: ProcessNode, broker: Any, times: int, words: bytes) -> None:
    before = node.logs().count(words)

    def tried() -> bool:
        assert is_queued(broker) or node.logs().count(b"parked") > 0, node.logs().decode()
        return node.logs().count(words) >= before + times

    wait_until(tried, what=f"{times} x {words.decode()}")


BACK = (b"unsettled_message_returned", b"task_retry")


def count_redeliveries(node: ProcessNode) -> int:
    return sum(node.logs().count(words) for words in BACK)


@dataclass
class FailingWorker:
    """A worker whose error handling fails at the step that its file names."""

    installation: Installation
    node: ProcessNode
    file: Path


@pytest.fixture(scope="module")
def failing_worker(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FailingWorker]:
    folder = tmp_path_factory.mktemp("failing")
    file = folder / "step"
    with temporary_installation(servers, admin, template_database, folder, lambda _: None) as installation:
        with installation.connect() as owner:
            owner.execute(POISON)
        with running_nodes(installation.environment() | {FAILING: str(file)}, folder) as start:
            yield FailingWorker(installation, start("worker", application="tests.e2e.failing_steps"), file)


@pytest.mark.guarantee("P1")
@pytest.mark.parametrize("step", STEPS)
def test_command_survives_failures_of_the_error_handling(step: str, failing_worker: FailingWorker) -> None:
    installation, node = failing_worker.installation, failing_worker.node
    broker, before = installation.redis(), count_redeliveries(node)
    request_id = step.replace(" ", "-")

    def dead_jobs() -> list[DeadJobRow]:
        return installation.dead_jobs(request_id=request_id)

    failing_worker.file.write_text(step)
    send_last(broker, request_id=request_id)
    wait_until(lambda: count_redeliveries(node) >= before + 2 or dead_jobs(), what="a message that comes back")
    assert is_queued(broker) or len(dead_jobs()) == 1
    failing_worker.file.unlink()
    wait_until(lambda: len(dead_jobs()) == 1 and not is_queued(broker), what="the dead job")
    assert dead_jobs()[0].arguments["request_id"] == request_id
    assert installation.count(RequestRow, request_id=request_id) == 0


@pytest.mark.guarantee("P1")
@pytest.mark.parametrize("hindrance", ["LOCK TABLE unwind.dead_jobs IN ACCESS EXCLUSIVE MODE", READ_ONLY])
def test_command_waits_until_its_dead_job_can_be_stored(
    hindrance: str, poison: None, run: Run, broker: Any, database_rows: DatabaseRows, database_url: str
) -> None:
    node = run("worker", application="tests.e2e.failing_steps", TEST_FAILING="/nonexistent")
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute(hindrance)
        if hindrance is READ_ONLY:
            holder.commit()
        send_last(broker)
        wait_for_retries(node, broker, 3, b"job_park_failed")
        assert b"job_parked" not in node.logs()
        assert is_queued(broker)
        if hindrance is READ_ONLY:
            holder.execute("DROP TRIGGER read_only ON unwind.dead_jobs")
        holder.commit()
    wait_until(lambda: database_rows.count(DeadJobRow) == 1 and not is_queued(broker), what="the dead job")
    wait_until(lambda: node.logs().count(b"job_parked") == 1, what="its line")


@pytest.mark.guarantee("P1")
def test_command_that_kills_its_process_becomes_a_dead_job(
    poison: None, run: Run, broker: Any, database_rows: DatabaseRows, tmp_path: Path
) -> None:
    failing = tmp_path / "failing"
    failing.write_text(LOST)
    node = run("worker", application="tests.e2e.failing_steps", TEST_FAILING=str(failing))
    send_last(broker, retries=3)
    wait_for_retries(node, broker, 2, b"lost_job_park_failed")
    assert is_queued(broker)
    failing.write_text(DYING)
    wait_until(lambda: database_rows.count(DeadJobRow) == 1 and not is_queued(broker), what="the dead job")
    assert database_rows.stored_one(DeadJobRow).reason == "WORKER_DIED"


@pytest.mark.guarantee("P1")
def test_message_that_celery_rejects_is_stored_before_it_is_removed(
    run: Run, broker: Any, upstream: Celery, database_rows: DatabaseRows
) -> None:
    run("worker")
    broker.lpush("commands", json.dumps(message([[], {}, EMBED], headers={"task": "npb.fail", "id": "unknown-1"})))
    wait_until(lambda: not is_queued(broker), what="the end of the message")
    assert broker.llen("unwind.dead-letters") + database_rows.count(DeadLetterRow) >= 1
    wait_until(lambda: database_rows.count(DeadLetterRow) == 1, what="the dead letter")
    assert database_rows.stored_one(DeadLetterRow).reason == "TASK_UNKNOWN"


def test_process_without_connections_gets_no_messages(
    run: Run, broker: Any, broker_url: str, database_rows: DatabaseRows, tmp_path: Path
) -> None:
    failing = tmp_path / "failing"
    failing.write_text(CONNECTING)
    node = run("worker", application="tests.e2e.failing_steps", TEST_FAILING=str(failing))
    send_last(broker, retries=0)
    wait_until(lambda: b"process_connect_failed" in node.logs(), what="its line")
    wait_until(lambda: [p.ready for p in inspect_worker_pools(broker_url).values()] == [0], what="what doctor asks")
    assert is_queued(broker)
    assert database_rows.count(RequestRow) == 0
    failing.unlink()
    wait_until(lambda: database_rows.count(RequestRow) == 1, what="the answer")
    wait_until(lambda: not is_queued(broker), what="the end of the message")


@pytest.mark.parametrize(
    ("application", "words", "sentence"),
    [
        ("workers.app", ["--pool=threads"], "do not run in the pool celery.concurrency.thread:TaskPool"),
        ("tests.e2e.failing_steps", [], "cannot connect, so it takes no messages: StepFailed"),
    ],
)
def test_worker_with_invalid_options_does_not_start(
    application: str, words: list[str], sentence: str, node_environment: dict[str, str], broker: Any, tmp_path: Path
) -> None:
    (tmp_path / "failing").write_text(CHECKING)
    send_last(broker)
    environment = os.environ | node_environment | {FAILING: str(tmp_path / "failing"), "C_FORCE_ROOT": "1"}
    command = [sys.executable, "-m", "celery", "-A", application, "worker", "-c", "1", *words]
    ended = subprocess.run(
        command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert broker.llen("commands") == 1


@pytest.mark.parametrize(
    "pool", ["gevent", "eventlet", "threads", "custom:Pool", "celery.concurrency.thread:TaskPool", ThreadPool]
)
def test_pools_without_processes_are_refused(pool: Any) -> None:
    assert worker_pool_path(pool) not in SUPPORTED_POOLS


def test_documented_pools_are_supported() -> None:
    context = click.Context(worker, obj=SimpleNamespace(app=app))
    chosen = [WorkersPool().convert(name, None, context) for name in ("prefork", "solo")]
    assert tuple(map(worker_pool_path, chosen)) == SUPPORTED_POOLS


@pytest.mark.guarantee("P1")
def test_datestyle_of_the_database_changes_nothing(
    seed_two_alerts: None, run: Run, upstream: Celery, database_rows: DatabaseRows, conn: psycopg.Connection
) -> None:
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET datestyle = 'German, DMY'".encode())
    run("worker")
    arguments = {"order_id": 1001, "member_id": "seller"}
    assert upstream.send_task("orders.cancel", kwargs=arguments, queue="commands").get(timeout=30)["outcome"] == "done"
    assert database_rows.count(DeadJobRow) == 0
