"""Tests of the interfaces as upstream systems use and misuse them, with a real worker and real servers.

No product code sends anything here: plain Celery, `celery call`, hand-made envelopes and SQL.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
from celery.exceptions import NotRegistered

from models.alerts import AlertRow
from models.db import database as db
from models.dead_letters import DeadLetterRow
from models.events import EventRow
from tests.plugins.market import Market
from tests.plugins.sql_interface import submit_command
from tests.plugins.upstream import Installation, submit_orders, temporary_installation
from tests.plugins.website import Website, serving
from tests.waiting import wait_until
from tools.contract_messages import envelope
from web.settings import WebSettings
from workers.embedded.client import ServerUrls
from workers.settings import CHECKOUT

pytestmark = pytest.mark.e2e


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2013), buyer_id="stranger")


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(
        servers, admin, template_database, tmp_path_factory.mktemp("interfaces"), seed
    ) as running:
        running.start_worker()
        yield running


@pytest.fixture
def http(installation: Installation) -> Iterator[Website]:
    database = db.connect(installation.database_url)
    with serving(WebSettings(installation.database_url)) as url:
        yield Website(url, database)
    database.dispose()


def test_every_example_message_is_answered(installation: Installation) -> None:
    schema = json.loads((CHECKOUT / "contract" / "answer.schema.json").read_text())
    examples = [
        json.loads(path.read_text())
        for path in sorted((CHECKOUT / "contract" / "examples").glob("*.json"))
        if not path.name.startswith("answer.")
    ]
    # Examples that would change orders of other tests name an unknown order, which is answered too.
    assert len(examples) > 30
    queue, results = installation.redis(), installation.redis(results=True)
    keys = {entry["task"]: f"celery-task-meta-{entry['message']['headers']['id']}" for entry in examples}
    for entry in examples:
        if entry["task"] != "terms.apply":
            queue.lpush("commands", json.dumps(entry["message"]))
    for task, key in keys.items():
        if task == "terms.apply":
            continue
        stored = json.loads(wait_until(lambda key=key: results.get(key)))  # type: ignore[misc]
        assert stored["status"] == "SUCCESS", (task, stored)
        answer = stored["result"]
        jsonschema.validate(answer, schema)
        assert answer["request_id"] == f"example-{task}"
        assert answer["outcome"] in ("done", "refused"), (task, answer)


@pytest.mark.parametrize("representation", [{}, {"argsrepr": "()", "kwargsrepr": "{'comment': 'a secret word'}"}])
@pytest.mark.parametrize("request_id", [None, "plain-1"])
def test_plain_celery_client_is_answered(
    installation: Installation, representation: dict[str, str], request_id: str | None
) -> None:
    chosen = request_id and f"{request_id}-{len(representation)}"
    arguments = {"order_id": 2001, "member_id": "stranger", "comment": "a secret word"}
    if chosen:
        arguments["request_id"] = chosen
    with installation.client() as client:
        sent = client.send_task("npb.respond", kwargs=arguments, queue="commands", **representation)
        answer = sent.get(timeout=30)
    assert (answer["outcome"], answer["code"]) == ("refused", "NO_OPEN_ALERT")
    assert answer["request_id"] == (chosen or sent.id)
    assert "secret" not in installation.log()


def test_celery_call_is_answered(installation: Installation) -> None:
    words = [
        str(Path(sys.executable).parent / "celery"),
        "-b",
        installation.broker_url,
        "call",
        "npb.file",
        "--queue",
        "commands",
    ]
    words += ["--kwargs", json.dumps({"order_id": 2002, "member_id": "seller", "request_id": "called-1"})]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert str(uuid.UUID(done.stdout.strip())) == done.stdout.strip()
    assert installation.answer_of("called-1")["outcome"] == "done"


def test_envelope_pushed_repeatedly_has_one_answer(installation: Installation) -> None:
    queue, results = installation.redis(), installation.redis(results=True)
    arguments = {"order_id": 2003, "member_id": "seller", "request_id": "by-hand-1"}
    first, second = (str(uuid.uuid4()) for _ in range(2))
    answers = []
    for message_id in (first, second):
        message = envelope("npb.file", arguments, message_id, str(uuid.uuid4()))
        queue.lpush("commands", json.dumps(message))
        answers.append(json.loads(wait_until(lambda key=f"celery-task-meta-{message_id}": results.get(key)))["result"])  # type: ignore[misc]
    assert answers[0]["outcome"] == "done"
    assert answers[1] == answers[0] | {"replayed": True}
    assert installation.count(AlertRow, order_id=2003) == 1


def test_required_fields_of_an_envelope_are_enough(installation: Installation) -> None:
    message_id = str(uuid.uuid4())
    body = json.dumps([[], {"order_id": 1, "member_id": "x"}, {}])
    minimal = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "npb.file", "id": message_id},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "commands"},
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    installation.redis().lpush("commands", json.dumps(minimal))
    results = installation.redis(results=True)
    answer = json.loads(wait_until(lambda: results.get(f"celery-task-meta-{message_id}")))["result"]
    assert (answer["code"], answer["request_id"]) == ("ORDER_UNKNOWN", message_id)


def test_positional_arguments_are_invalid(installation: Installation) -> None:
    with installation.client() as client:
        answer = client.send_task("npb.file", args=[2004, "seller"], queue="commands").get(timeout=30)
    assert answer["outcome"] == "invalid"
    assert answer["errors"] == [{"path": "args", "message": "only keyword arguments are accepted"}]


def test_rejected_messages_are_answered_and_listed(installation: Installation) -> None:
    with installation.client() as client:
        unknown = client.send_task("orders.cancle", kwargs={"comment": "a secret word"}, queue="commands")
        with pytest.raises(NotRegistered, match=r"Did you mean orders\.cancel"):
            unknown.get(timeout=30)
        nowhere = client.send_task("orders.cancel", kwargs={"order_id": 2004, "member_id": "seller"})
        urgent = client.send_task("orders.cancel", kwargs={"order_id": 2004}, queue="commands", priority=3)
    installation.redis().lpush("commands", json.dumps(_no_task()))
    wait_until(lambda: installation.count(DeadLetterRow) == 2)
    dead_letters = installation.dead_letters()
    reasons = {(entry["reason"], entry["task"], entry["message"], entry["queue"]) for entry in dead_letters}
    assert ("TASK_UNKNOWN", "orders.cancle", unknown.id, "commands") in reasons
    assert ("QUEUE_UNREAD", "orders.cancel", nowhere.id, "celery") in reasons
    assert ("QUEUE_UNREAD", "orders.cancel", urgent.id, "commands with priority 3") in reasons
    assert ("NOT_A_COMMAND", None, None, "commands") in reasons
    assert "secret" not in json.dumps(dead_letters)
    assert "secret" not in installation.log()
    with installation.client() as client:  # the worker continues
        assert client.send_task("npb.file", kwargs={}, queue="commands").get(timeout=30)["outcome"] == "invalid"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a callback": ({"link": [{"task": "npb.file", "args": [], "kwargs": {}, "options": {}, "subtask_type": None,
                              "immutable": False}]}, "NOT_ALLOWED: callbacks, chains and chords are not taken"),
    "an hour ahead": (
        {"countdown": 3600},
        "NOT_ALLOWED: headers.eta is more than a minute away: send it when it is wanted",
    ),
    "too late": ({"expires": -1}, "EXPIRED: its producer wanted it done by an instant that has passed"),
    "an hour's work": ({"time_limit": 3600}, "NOT_ALLOWED: headers.timelimit must not go beyond our own"),
}  # fmt: skip
"""Messages of Celery users that are rejected, with the reasons."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as below
@pytest.mark.parametrize("name", WRONG)
def test_caller_of_a_rejected_message_gets_the_reason(installation: Installation, name: str) -> None:
    options, reasons = WRONG[name]
    with installation.client() as client:
        if "expires" in options:  # Celery itself refuses to send an expired message
            options = {"headers": {"expires": "2026-01-01T00:00:00+00:00"}}
        sent = client.send_task("npb.file", kwargs={"order_id": 1, "member_id": "x"}, queue="commands", **options)
        with pytest.raises(Exception, match=reasons) as caught:
            sent.get(timeout=30)
        assert type(caught.value).__name__ == "MessageRefused"
        assert sent.state == "FAILURE"
    gc.collect()
    assert installation.redis(results=True).ttl(f"celery-task-meta-{sent.id}") > 0
    wait_until(lambda: installation.count(DeadLetterRow, message_id=sent.id) == 1)


def test_rejected_message_overwrites_no_answer(installation: Installation) -> None:
    queue, results = installation.redis(), installation.redis(results=True)
    with installation.client() as client:
        sent = client.send_task("npb.file", kwargs={"order_id": 1, "member_id": "x"}, queue="commands")
        assert sent.get(timeout=30)["code"] == "ORDER_UNKNOWN"
    before = results.get(f"celery-task-meta-{sent.id}")
    for message_id, ignored in ((sent.id, False), ("nobody-waits", True), ("last-one", False)):
        message = envelope("npb.file", {}, message_id, str(uuid.uuid4()))
        message["headers"] |= {"ignore_result": ignored, "timelimit": "soon"}
        queue.lpush("commands", json.dumps(message))
    assert json.loads(wait_until(lambda: results.get("celery-task-meta-last-one")))["status"] == "FAILURE"
    assert results.get(f"celery-task-meta-{sent.id}") == before
    assert results.get("celery-task-meta-nobody-waits") is None


GROUP = """
import os
from celery import Celery, group

with Celery("storefront", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"]) as app:
    wanted = [app.signature("npb.file", kwargs={"order_id": n, "member_id": "x"}, queue="commands") for n in (1, 2, 3)]
    print([answer["code"] for answer in group(wanted).apply_async().get(timeout=30)])
"""


def test_group_of_commands_is_answered(installation: Installation) -> None:
    words = [sys.executable, "-c", GROUP]
    done = subprocess.run(words, env=installation.environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["ORDER_UNKNOWN"] * 3)


@pytest.mark.long
def test_delayed_command_survives_the_worker(installation: Installation) -> None:
    queue = installation.redis()
    with installation.client() as client:
        began = time.monotonic()
        arguments = {"order_id": 2008, "member_id": "seller"}
        late = client.send_task("npb.file", kwargs=arguments, queue="commands", countdown=12)
        many = [client.send_task("npb.file", kwargs={"order_id": 1, "member_id": "x"}, queue="commands", countdown=8)
                for _ in range(150)]  # fmt: skip
        wait_until(lambda: queue.zcard("unwind.delayed.commands") == 151)
        assert client.send_task("npb.file", kwargs={}, queue="commands").get(timeout=30)["outcome"] == "invalid"
        assert queue.zcard("unwind.delayed.commands") == 151, "that one did not wait for them"
        os.killpg(installation.supervisor.pid("commands"), signal.SIGKILL)
        assert late.get(timeout=60)["outcome"] == "done"
        assert time.monotonic() - began >= 12
        assert {entry.get(timeout=30)["code"] for entry in many} == {"ORDER_UNKNOWN"}
    assert queue.zcard("unwind.delayed.commands") == 0
    assert installation.count(EventRow, order_id=2008, type="npb.filed") == 1


def _no_task() -> dict[str, Any]:
    message = envelope("x", {"comment": "a secret word"}, "x", str(uuid.uuid4()))
    message["headers"] = {"subject": "greetings"}
    message["body"] = base64.b64encode(b'{"hello": "a secret word"}').decode()
    return message


# Celery's clients leave a thread's connections to the garbage collector, which may find a socket
# before its owner. They are collected here, so that the warning appears in this test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_request_sent_a_hundred_times_through_all_interfaces_runs_once(
    installation: Installation, http: Website
) -> None:
    arguments = {"order_id": 2005, "member_id": "seller", "comment": "once"}
    barrier = threading.Barrier(20)

    def send_five(thread: int) -> list[dict[str, Any]]:
        barrier.wait(30)
        answers = []
        with installation.client() as client, installation.connect() as conn:
            for n in range(5):
                if (thread + n) % 3 == 0:
                    answers.append(http.command("npb.file", arguments, "once-1").json)
                elif (thread + n) % 3 == 1:
                    with_id = arguments | {"request_id": "once-1"}
                    answers.append(client.send_task("npb.file", kwargs=with_id, queue="commands").get(timeout=60))
                else:
                    receipt = submit_command(conn, "npb.file", arguments, "once-1")
                    assert receipt == {"request_id": "once-1", "accepted": True, "code": None}
                    answers.append(installation.answer_of("once-1"))
        return answers

    with ThreadPoolExecutor(20) as threads:
        answers = [answer for batch in threads.map(send_five, range(20)) for answer in batch]
    gc.collect()
    assert len(answers) == 100
    assert len({json.dumps(answer | {"replayed": None}, sort_keys=True) for answer in answers}) == 1
    assert answers[0]["outcome"] == "done"
    assert installation.count(AlertRow, order_id=2005) == 1
    assert installation.count(EventRow, order_id=2005, type="npb.filed") == 1
    conflicting = {"order_id": 2006, "member_id": "seller", "request_id": "once-1"}
    with installation.client() as client, installation.connect() as conn:
        conflict = client.send_task("npb.file", kwargs=conflicting, queue="commands").get(timeout=30)
        refused = submit_command(conn, "npb.file", conflicting, "once-1")
    assert (conflict["outcome"], conflict["code"]) == ("conflict", "REQUEST_ID_REUSED")
    by_http = http.command("npb.file", conflicting, "once-1")
    assert (by_http.status, by_http.json["code"]) == (409, "REQUEST_ID_REUSED")
    assert refused == {"request_id": "once-1", "accepted": False, "code": "REQUEST_ID_REUSED"}


@pytest.mark.guarantee("P1")
def test_answer_survives_the_death_of_its_caller(installation: Installation) -> None:
    arguments = {"order_id": 2007, "member_id": "seller", "request_id": "died-1"}
    with installation.client() as client:
        client.send_task("npb.file", kwargs=arguments, queue="commands", ignore_result=True)
    answer = installation.answer_of("died-1")
    installation.redis(results=True).flushdb()
    words = [sys.executable, "-m", "workers", "show", "request", "died-1", "--json"]
    done = subprocess.run(
        words, env=installation.environment(), cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert json.dumps(answer["outcome"]) in done.stdout
    with installation.client() as client:
        again = client.send_task("npb.file", kwargs=arguments, queue="commands").get(timeout=30)
    assert again == answer | {"replayed": True}


# -- bulk --------------------------------------------------------------------------------------------------------------
