"""A worker and beat whose broker fails over to a replica that has not received the last messages."""

from __future__ import annotations

import contextlib
import json

import psycopg
import pytest
from celery import Celery

from tests.e2e.conftest import Run
from tests.plugins.sentinel import MAX_SECONDS, SentinelGroup
from tests.waiting import wait_until
from workers.broker.redis_url import connect

COMMANDS = 10


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(500)
@pytest.mark.guarantee("P1")
def test_accepted_commands_survive_a_failover_of_the_broker(
    run: Run, sentinel_group: SentinelGroup, books: psycopg.Connection
) -> None:
    addresses = {"CELERY_BROKER_URL": sentinel_group.url(0), "CELERY_RESULT_BACKEND": sentinel_group.url(1)}
    worker = run("worker", **addresses)
    run("beat", **addresses)

    def submit(name: str) -> None:
        for number in range(COMMANDS):
            member = {"member_id": f"{name}-{number}", "handle": f"{name}_{number}", "email": f"{name}{number}@e.org"}
            query = "SELECT unwind.submit_command('members.record', %s::jsonb, %s)"
            books.execute(query, [json.dumps(member), f"{name}-{number}"])

    def answered(name: str) -> int:
        query = "SELECT count(*) FROM unwind.command_answers WHERE request_id LIKE %s AND outcome = 'done'"
        row = books.execute(query, [f"{name}-%"]).fetchone()
        assert row is not None
        return int(row[0])

    submit("before")
    wait_until(lambda: answered("before") == COMMANDS, MAX_SECONDS)
    sentinel_group.lose_what_follows()
    submit("lost")
    sentinel_group.kill_primary()
    submit("after")
    wait_until(lambda: answered("lost") == answered("after") == COMMANDS, MAX_SECONDS)
    sentinel_group.restart_primary()
    with (
        Celery(
            "upstream", broker=_plain(sentinel_group, 0), backend=_plain(sentinel_group, 1), set_as_current=False
        ) as app,
    ):
        answer = app.send_task("orders.options", kwargs={"order_id": 1, "member_id": "m"}, queue="commands")
        assert answer.get(timeout=60)["code"] == "ORDER_UNKNOWN"
    with contextlib.closing(connect(sentinel_group.url())) as client:
        wait_until(lambda: client.info("replication")["connected_slaves"] == 1, MAX_SECONDS)
    assert worker.status == "running"


def _plain(group: SentinelGroup, database: int) -> str:
    """The promoted server, as a caller names it that is no process of ours."""
    return f"redis://:{group.replica.password}@127.0.0.1:{group.replica.port}/{database}"
