"""Tests that huge or absurd payloads do not stop the commands behind them, by message and by SQL.

The bars: a valid command behind a single one is answered within 5 s, behind eight within 15 s, and no worker process
exceeds 400 MB.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.plugins.market import Market
from tests.plugins.sql_interface import submit_command, submit_text
from tests.plugins.upstream import Installation, temporary_installation
from tests.waiting import wait_until
from tests.workers.submissions.test_payloads import UNREADABLE
from tests.workers.transport.hostile_messages import EMBED, message
from workers.embedded.client import ServerUrls

pytestmark = [pytest.mark.e2e, pytest.mark.long]

ONE_PAYLOAD_TIMEOUT, EIGHT_PAYLOADS_TIMEOUT = 5.0, 15.0
MAX_MEMORY_BYTES = 400 * 10**6
BACKLOG = 100_000


def _many(comment: str) -> str:
    items = [{"order_id": n, "member_id": "seller", "comment": comment} for n in range(1, 1001)]
    return json.dumps({"orders": items}, ensure_ascii=False)


PAYLOADS: dict[str, Callable[[], str]] = {
    **{name: lambda payload=payload: payload for name, payload in UNREADABLE.items()},  # type: ignore[misc]
    "escaped letters": lambda: _many("é" * 2000).replace("é", "\\u00e9"),
    "letters of four bytes": lambda: _many("\U0001f9f1" * 2000),
    "a long comment with one letter of four bytes": lambda: json.dumps(
        {"order_id": 1, "member_id": "seller", "comment": "\U0001f9f1" + "x" * 11_700_000}, ensure_ascii=False
    ),
    "the maximum number of parts": lambda: '{"orders": [' + ",".join(["{}"] * 16_600) + "]}",
    "the maximum number of fields": lambda: "{" + ",".join(f'"{n}":"{n}"' for n in range(49_000)) + "}",
    "more parts than may be": lambda: '{"orders": [' + ",".join(["[]"] * 3_900_000) + "]}",
}
BODIES: dict[str, Callable[[], bytes]] = {
    **{
        name: lambda build=build: b"[[], " + build().encode() + b", {}]"  # type: ignore[misc]
        for name, build in PAYLOADS.items()
    },
    "positional": lambda: b"[[" + b",".join([b"[]"] * 3_900_000) + b"], {}, {}]",
    "levels": lambda: b'[[], {"a": ' + b"[" * 6_000_000 + b"]" * 6_000_000 + b"}, {}]",
}


class MemoryWatch:
    def __init__(self, head: int) -> None:
        self.most: dict[str, int] = {}
        self._head = psutil.Process(head)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            with contextlib.suppress(psutil.Error):
                for process in (self._head, *self._head.children()):
                    name = "head" if process.pid == self._head.pid else "child"
                    self.most[name] = max(self.most.get(name, 0), _peak(process.pid))


def _peak(pid: int) -> int:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return 0


def seed(market: Market) -> None: ...


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(
        servers, admin, template_database, tmp_path_factory.mktemp("payloads"), seed
    ) as running:
        running.start_worker(concurrency=2)
        yield running


@pytest.fixture(scope="module")
def memory_watch(installation: Installation) -> Iterator[MemoryWatch]:
    memory_watch = MemoryWatch(installation.supervisor.pid("commands"))
    yield memory_watch
    memory_watch.close()


numbers = itertools.count()


def by_sql(installation: Installation) -> float:
    began, request_id = time.monotonic(), f"healthy-{next(numbers)}"
    with installation.connect() as conn:
        submit_command(conn, "npb.file", {"order_id": 5, "member_id": "seller"}, request_id)
    installation.answer_of(request_id)
    return time.monotonic() - began


def by_message(installation: Installation) -> float:
    began, message_id = time.monotonic(), str(uuid.uuid4())
    installation.redis().lpush("commands", json.dumps(message(headers={"id": message_id})))
    results = installation.redis(results=True)
    wait_until(lambda: results.get(f"celery-task-meta-{message_id}"), 60)
    return time.monotonic() - began


def push(installation: Installation, body: bytes, *, plain: bool = False) -> None:
    task = "orders.cancel_many" if b'"orders"' in body[:30] else "npb.file"
    envelope = {"body": body.decode(), "properties": {"body_encoding": None}} if plain else {"body": _base64(body)}
    installation.redis().lpush("commands", json.dumps(message(headers={"task": task}, **envelope)))


def _base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def submit(installation: Installation, payload: str, request_id: str) -> bool:
    task = "orders.cancel_many" if '"orders"' in payload[:30] else "npb.file"
    with installation.connect() as conn:
        receipt = submit_text(conn, task, payload, request_id)
        assert 0 < _peak(conn.info.backend_pid) < MAX_MEMORY_BYTES
    return bool(receipt["accepted"])


@pytest.mark.guarantee("P8")
@pytest.mark.parametrize("name", PAYLOADS)
def test_command_behind_an_absurd_payload_is_answered_within_seconds(
    installation: Installation, memory_watch: MemoryWatch, name: str
) -> None:
    accepted = submit(installation, PAYLOADS[name](), f"one-{name}".replace(" ", "-").replace(",", ""))
    assert accepted is (name != "more parts than may be")
    assert by_sql(installation) < ONE_PAYLOAD_TIMEOUT
    assert by_message(installation) < ONE_PAYLOAD_TIMEOUT
    assert max(memory_watch.most.values()) < MAX_MEMORY_BYTES, memory_watch.most
    if accepted:
        assert installation.answer_of(f"one-{name}".replace(" ", "-").replace(",", ""))["outcome"] in (
            "invalid",
            "done",
        )


@pytest.mark.guarantee("P8")
@pytest.mark.parametrize("plain", [False, True], ids=["base64", "text"])
@pytest.mark.parametrize("name", BODIES)
def test_command_behind_an_absurd_message_is_answered_within_seconds(
    installation: Installation, memory_watch: MemoryWatch, name: str, plain: bool
) -> None:
    push(installation, BODIES[name](), plain=plain)
    assert by_message(installation) < ONE_PAYLOAD_TIMEOUT
    assert by_sql(installation) < ONE_PAYLOAD_TIMEOUT
    assert max(memory_watch.most.values()) < MAX_MEMORY_BYTES, memory_watch.most


@pytest.mark.guarantee("P8")
def test_command_behind_eight_large_payloads_is_answered_within_seconds(
    installation: Installation, memory_watch: MemoryWatch
) -> None:
    payload = PAYLOADS["escaped letters"]()
    assert len(payload) > 11_700_000
    assert all(submit(installation, payload, f"eight-{n}") for n in range(8))
    assert by_sql(installation) < EIGHT_PAYLOADS_TIMEOUT
    assert by_message(installation) < EIGHT_PAYLOADS_TIMEOUT
    for n in range(8):
        assert installation.answer_of(f"eight-{n}")["outcome"] == "done"
    assert max(memory_watch.most.values()) < MAX_MEMORY_BYTES, memory_watch.most


@pytest.mark.guarantee("P8")
@pytest.mark.parametrize("name", ["escaped letters", "the maximum number of fields", "positional"])
def test_command_behind_eight_large_messages_is_answered_within_seconds(
    installation: Installation, memory_watch: MemoryWatch, name: str
) -> None:
    body = BODIES[name]()
    for _ in range(8):
        push(installation, body)
    assert by_message(installation) < EIGHT_PAYLOADS_TIMEOUT
    assert by_sql(installation) < EIGHT_PAYLOADS_TIMEOUT
    assert max(memory_watch.most.values()) < MAX_MEMORY_BYTES, memory_watch.most


@pytest.mark.guarantee("P8")
def test_commands_by_sql_do_not_wait_for_the_brokers_backlog(installation: Installation) -> None:
    queue = installation.redis()
    for start in range(0, BACKLOG, 5_000):
        messages = [
            json.dumps(
                message([[], {"order_id": n + 1, "member_id": "nobody"}, EMBED], headers={"ignore_result": True})
            )
            for n in range(start, start + 5_000)
        ]
        queue.lpush("commands", *messages)
    try:
        waits = [by_sql(installation) for _ in range(10)]
        assert queue.llen("commands") > BACKLOG / 2, "the backlog is still there"
        assert max(waits) < ONE_PAYLOAD_TIMEOUT, waits
    finally:
        queue.delete("commands")
    assert by_message(installation) < ONE_PAYLOAD_TIMEOUT


def test_worker_survived_all_payloads(installation: Installation, memory_watch: MemoryWatch) -> None:
    assert installation.supervisor.restarts == 0
    assert "WorkerLostError" not in installation.log()
