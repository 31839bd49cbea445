"""Tests that a pause applies to all workers and interfaces, loses nothing, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from models.sweeps import SweepRow
from tests.plugins.market import Market
from tests.plugins.servers import count_in_flight
from tests.plugins.sql_interface import submit_command
from tests.plugins.upstream import START_TIMEOUT_SECONDS, Installation, submit_orders, temporary_installation
from tests.waiting import wait_until
from tests.workers.transport.hostile_messages import message
from workers.broker.wakeups import KEY_PREFIX
from workers.embedded.client import ServerUrls
from workers.local.process_specs import WORKER_GROUPS, flower_program, worker_program
from workers.settings import CHECKOUT
from workers.transport.pausing import PAUSES_KEY
from workers.transport.postponed import MAX_PAUSED_TICKS, PARKED_PREFIX

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(240)]

UNKNOWN = {"order_id": 1, "member_id": "x"}


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2013), buyer_id="stranger")


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(servers, admin, template_database, tmp_path_factory.mktemp("pause"), seed) as running:
        start(running)
        yield running


def start(installation: Installation) -> None:
    for group in WORKER_GROUPS:
        installation.supervisor.start(worker_program(installation.settings, group))
    installation.supervisor.wait_ready(START_TIMEOUT_SECONDS)


def run(installation: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers", *words]
    return subprocess.run(
        command, env=installation.environment(), cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def pause(installation: Installation, name: str, *words: str) -> None:
    done = run(installation, "pause", name, *words)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: all(name in is_obeyed(installation, group) for group in WORKER_GROUPS))


def is_obeyed(installation: Installation, group: str) -> str:
    lines = installation.supervisor.log(group).read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if "pauses_changed" in line), "")


def wait_for_poll(installation: Installation) -> None:
    installation.redis().delete(PAUSES_KEY)
    wait_until(lambda: installation.redis().exists(PAUSES_KEY), 90)


def resume(installation: Installation, name: str) -> None:
    done = run(installation, "resume", name)
    assert done.returncode == 0, done.stderr


def findings(installation: Installation) -> dict[str, str]:
    report = json.loads(run(installation, "doctor", "--json").stdout)
    return {finding["code"]: finding["message"] for finding in report["findings"]}


def submit(installation: Installation, task: str, payload: Any, request_id: str) -> None:
    with installation.connect() as conn:
        receipt = submit_command(conn, task, payload, request_id)
    assert receipt["accepted"], receipt


def state(installation: Installation, request_id: str) -> str | None:
    row = installation.command_answer(request_id)
    return None if row is None else row.state


def test_messages_of_a_paused_queue_stay_and_the_pause_survives_workers(installation: Installation) -> None:
    queue = installation.redis()
    pause(installation, "commands", "--reason", "the disk is being moved")
    with installation.client() as client:
        sent = [client.send_task("npb.file", kwargs=UNKNOWN, queue="commands") for _ in range(30)]
        submit(installation, "npb.file", {"order_id": 2001, "member_id": "seller"}, "paused-sql")
        queue.set(KEY_PREFIX + "submissions.drain", 1)  # as when a worker is killed before it sends the wake-up
        for group in WORKER_GROUPS:
            os.killpg(installation.supervisor.pid(group), signal.SIGKILL)
        wait_for_poll(installation)  # they were returned to the queue
        codes = findings(installation)
        assert "the disk is being moved" in codes["PAUSED"]
        assert "SUBMISSIONS_LATE" not in codes
        wait_for_poll(installation)
        assert queue.llen("commands") >= 30
        assert count_in_flight(queue) == 0
        assert state(installation, "paused-sql") == "waiting"
        resume(installation, "commands")
        assert {result.get(timeout=60)["code"] for result in sent} == {"ORDER_UNKNOWN"}
    assert installation.answer_of("paused-sql")["outcome"] == "done"
    assert "PAUSED" not in findings(installation)
    assert run(installation, "resume", "commands").returncode == 1


def test_messages_of_a_paused_task_wait_while_others_run(installation: Installation) -> None:
    queue = installation.redis()
    pause(installation, "npb.file")
    with installation.client() as client:
        sent = [
            client.send_task("npb.file", kwargs={"order_id": n, "member_id": "seller"}, queue="commands")
            for n in range(2002, 2007)
        ]
        soon = client.send_task("npb.file", kwargs=UNKNOWN, queue="commands", countdown=1)
        submit(installation, "npb.file", {"order_id": 2008, "member_id": "seller"}, "task-1")
        submit(installation, "orders.options", {"order_id": 2008, "member_id": "seller"}, "task-2")
        submit(installation, "orders.options", {"order_id": 2009, "member_id": "seller"}, "task-3")
        assert client.send_task("npb.respond", kwargs=UNKNOWN, queue="commands").get(timeout=30)["outcome"] == "invalid"
        assert installation.answer_of("task-3")["outcome"] == "done"
        wait_until(lambda: queue.llen(PARKED_PREFIX + "npb.file") == 6)
        assert (queue.llen("commands"), [state(installation, f"task-{n}") for n in (1, 2)]) == (
            0,
            ["waiting", "waiting"],
        )
        os.killpg(installation.supervisor.pid("commands"), signal.SIGKILL)
        assert client.send_task("npb.respond", kwargs=UNKNOWN, queue="commands").get(timeout=60)["outcome"] == "invalid"
        assert queue.llen(PARKED_PREFIX + "npb.file") == 6
        resume(installation, "npb.file")
        assert [entry.get(timeout=60)["outcome"] for entry in sent] == ["done"] * 5
        assert soon.get(timeout=60)["code"] == "ORDER_UNKNOWN"
    assert [installation.answer_of(f"task-{n}")["outcome"] for n in (1, 2)] == ["done", "done"]
    wait_until(lambda: not queue.exists(PARKED_PREFIX + "npb.file", "unwind.parked"))


def test_paused_sweep_does_nothing_and_its_ticks_do_not_accumulate(installation: Installation) -> None:
    queue = installation.redis()
    tick = json.dumps(message([[], {}, {}], headers={"task": "reminders.scan", "ignore_result": True}))
    wake_up = json.dumps(
        message([[], {"rows": [1]}, {}], headers={"task": "notices.tell_seller", "ignore_result": True})
    )
    pause(installation, "reminders.scan")
    pause(installation, "notices.tell_seller")
    queue.lpush("sweeps", *[tick] * 20)
    queue.lpush("notices", wake_up)
    wait_until(lambda: queue.llen("sweeps") == 0 and queue.llen(PARKED_PREFIX + "notices.tell_seller") == 1)
    assert installation.count(SweepRow, name="reminders.scan") == 0
    assert (queue.exists(PARKED_PREFIX + "reminders.scan"), count_in_flight(queue)) == (0, 0)
    for name in ("reminders.scan", "notices.tell_seller"):
        resume(installation, name)
    wait_until(lambda: queue.llen(PARKED_PREFIX + "notices.tell_seller") == 0)
    wait_until(lambda: (queue.lpush("sweeps", tick), installation.count(SweepRow, name="reminders.scan"))[1])
    pause(installation, "sweeps")
    for _ in range(6):
        queue.lpush("sweeps", *[tick] * 1000)
    wait_until(lambda: queue.llen("sweeps") == MAX_PAUSED_TICKS)
    resume(installation, "sweeps")
    wait_until(lambda: queue.llen("sweeps") < MAX_PAUSED_TICKS)
    queue.delete("sweeps")


def test_pause_is_shown_by_the_command_metrics_and_flower(installation: Installation) -> None:
    tomorrow = in_the_future(installation, timedelta(days=1))
    pause(installation, "orders.options", "--until", tomorrow)
    pause(installation, "consequences")
    listed = [json.loads(line) for line in run(installation, "pause", "--json").stdout.splitlines()]
    assert {(entry["kind"], entry["name"], entry["until"]) for entry in listed} == {
        ("task", "orders.options", tomorrow),
        ("queue", "consequences", None),
    }
    metrics = run(installation, "metrics", "--once").stdout
    assert 'unwind_paused{kind="queue",name="consequences"} 1.0' in metrics
    program, address = flower_program(installation.settings)
    installation.supervisor.start(program)
    installation.supervisor.wait_ready(START_TIMEOUT_SECONDS, ["flower"])
    html = wait_until(lambda: page if "(paused)" in (page := _page(f"{address}broker")) else None)
    assert "consequences (paused)" in html
    for name in ("consequences", "orders.options"):
        resume(installation, name)
    assert run(installation, "pause").stdout == "Nothing is paused.\n"


def test_pause_expires(installation: Installation) -> None:
    until_then = in_the_future(installation, timedelta(seconds=20))
    with installation.client() as client:
        pause(installation, "orders.options", "--until", until_then)
        sent = client.send_task("orders.options", kwargs=UNKNOWN, queue="commands")
        assert sent.get(timeout=90)["code"] == "ORDER_UNKNOWN"
        assert installation.server_time() >= datetime.fromisoformat(until_then)
    assert run(installation, "pause").stdout == "Nothing is paused.\n"


def in_the_future(installation: Installation, delay: timedelta) -> str:
    return f"{installation.server_time() + delay:%Y-%m-%dT%H:%M:%SZ}"


def _page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        html: str = answer.read().decode()
    return html
