"""Tests that a worker survives every hostile message and answers a valid command after each."""

from __future__ import annotations

import base64
import json
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.dead_letters import MAX_BODY_BYTES, DeadLetterRow
from tests.plugins.market import Market
from tests.plugins.servers import count_in_flight
from tests.plugins.upstream import Installation, temporary_installation
from tests.waiting import wait_until
from tests.workers.transport.hostile_messages import ARGUMENTS, EXPECTED, message
from tests.workers.transport.test_validation import mutated_messages
from workers.embedded.client import ServerUrls

pytestmark = pytest.mark.e2e

SOON = 20.0
"""Seconds within which the good command after a bad message is answered, on a machine with other things to do; alone
0.03.
"""


def seed(market: Market) -> None: ...


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(servers, admin, template_database, tmp_path_factory.mktemp("hostile"), seed) as running:
        running.start_worker()
        yield running


def answered(installation: Installation, client: Any) -> dict[str, Any]:
    sent = client.send_task("npb.file", kwargs=ARGUMENTS[1], queue="commands")
    answer: dict[str, Any] = sent.get(timeout=SOON)
    return answer


@pytest.mark.guarantee("P8")
def test_worker_survives_and_stores_every_hostile_message(installation: Installation) -> None:
    head = installation.supervisor.pid("commands")
    queue = installation.redis()
    with installation.client() as client:
        waits = []
        for hostile in EXPECTED:
            began = time.monotonic()
            queue.lpush("commands", hostile.raw)
            assert answered(installation, client)["code"] == "ORDER_UNKNOWN", hostile.name
            waits.append(time.monotonic() - began)
    assert statistics.median(waits) < 1
    expected_dead_letters = [dead_letter for dead_letter in EXPECTED if dead_letter.reason is not None]
    wait_until(lambda: installation.count(DeadLetterRow) == len(expected_dead_letters))
    rows = _rows(installation)
    for hostile, (reason, length, begins) in zip(expected_dead_letters, rows, strict=True):
        assert reason == hostile.reason, hostile.name
        if hostile.reason != "TASK_UNKNOWN":  # Celery's event contains only the body
            assert (length, base64.b64decode(begins)) == (len(hostile.raw), hostile.raw[:MAX_BODY_BYTES]), hostile.name
    assert installation.supervisor.pid("commands") == head
    assert installation.supervisor.restarts == 0
    assert wait_until(lambda: count_in_flight(queue) == 0)
    assert "\n[ERROR] forged" not in installation.log()


def test_messages_that_the_task_can_answer_are_answered(installation: Installation) -> None:
    queue, results = installation.redis(), installation.redis(results=True)
    outcomes = {}
    for hostile in EXPECTED:
        if hostile.reason is None:
            raw = json.loads(hostile.raw)
            raw["headers"]["id"] = raw["headers"]["id"] + "-again"
            queue.lpush("commands", json.dumps(raw))
            key = f"celery-task-meta-{raw['headers']['id']}"
            outcomes[hostile.name] = json.loads(wait_until(lambda key=key: results.get(key)))["result"]["outcome"]  # type: ignore[misc]
    harmless = {
        "reviver in a header",
        "forged representation",
        "group",
        "forged reply_to",
        "delivered elsewhere",
    }
    assert {name for name, outcome in outcomes.items() if outcome == "refused"} == harmless
    assert {outcome for name, outcome in outcomes.items() if name not in harmless} == {"invalid"}


def test_five_copies_of_a_message_have_one_effect(installation: Installation) -> None:
    queue, results = installation.redis(), installation.redis(results=True)
    before = installation.count(DeadLetterRow)
    again = message(headers={"id": "five-times"})
    queue.lpush("commands", *[json.dumps(again)] * 5)
    assert (
        json.loads(wait_until(lambda: results.get("celery-task-meta-five-times")))["result"]["code"] == "ORDER_UNKNOWN"
    )
    assert wait_until(lambda: count_in_flight(queue) == 0 and queue.llen("commands") == 0)
    assert installation.count(DeadLetterRow) == before


def test_dead_letters_are_shown_without_their_content(installation: Installation) -> None:
    installation.redis().lpush("commands", json.dumps(message(headers={"timelimit": "a secret word", "id": "shown-1"})))
    wait_until(lambda: installation.count(DeadLetterRow, message_id="shown-1") == 1)
    dead_letters = installation.dead_letters()
    stored = [dead_letter for dead_letter in dead_letters if dead_letter["message"] == "shown-1"]
    assert stored[0]["reason"] == "NOT_ALLOWED"
    assert stored[0]["detail"] == "headers.timelimit must not go beyond our own"
    assert "secret" not in json.dumps(dead_letters)
    assert "secret" not in installation.log()


@pytest.mark.long
def test_worker_survives_random_bytes(installation: Installation) -> None:
    queue = installation.redis()
    head = installation.supervisor.pid("commands")
    with installation.client() as client:

        @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(mutated_messages() | st.binary(max_size=200))
        def push(raw: bytes) -> None:
            queue.lpush("commands", raw)
            if int.from_bytes(os.urandom(1)) % 20 == 0:
                assert answered(installation, client)["code"] == "ORDER_UNKNOWN"

        push()
        assert answered(installation, client)["code"] == "ORDER_UNKNOWN"
    assert installation.supervisor.pid("commands") == head
    assert wait_until(lambda: count_in_flight(queue) == 0)


def _rows(installation: Installation) -> list[tuple[str, int, str]]:
    return [(row.reason, row.body_bytes, row.body) for row in installation.stored(DeadLetterRow)]
