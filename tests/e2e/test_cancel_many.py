"""Tests of bulk cancellation by a real worker that is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.orders import OrderRow
from tests.e2e.order_locks import locked_order
from tests.plugins.market import Market
from tests.plugins.upstream import Installation, submit_orders, temporary_installation
from tests.waiting import wait_until
from workers.embedded.client import ServerUrls

pytestmark = [pytest.mark.e2e, pytest.mark.long]


def seed_bulk(count: int) -> Any:
    def write(market: Market) -> None:
        market.done("members.record", member_id="gone", handle="Gone", email="gone@example.org")
        submit_orders(market, range(10_000, 10_000 + count), buyer_id="gone")
        submit_orders(market, range(90_000, 90_003), buyer_id="stranger")
        market.done("members.terminate", member_id="gone", staff="Kim", comment="closed")
        market.done("ocr.file", order_id=90_002, member_id="seller", reason="S_MUTUAL", comment="agreed")
        market.done("orders.cancel", order_id=90_002, member_id="seller")

    return write


def bulk(count: int, bad: int) -> tuple[list[Any], list[tuple[str, str | None]]]:
    kinds: list[tuple[Any, tuple[str, str | None]]] = [
        ({"order_id": 999_999, "member_id": "seller"}, ("refused", "ORDER_UNKNOWN")),
        ({"order_id": 90_000, "member_id": "other_seller"}, ("refused", "NOT_A_PARTY")),
        ({"order_id": 90_001, "member_id": "seller"}, ("refused", "NO_OPEN_REQUEST")),
        ({"order_id": 90_002, "member_id": "seller"}, ("refused", "ALREADY_CANCELLED")),
        ({"order_id": "ten thousand", "member_id": "seller"}, ("invalid", None)),
        ({"order_id": 10_000}, ("invalid", None)),
        ("not an object", ("invalid", None)),
        ({"order_id": 10_000, "member_id": "seller", "surplus": 1}, ("invalid", None)),
    ]
    every = count // bad
    items: list[Any] = []
    expected: list[tuple[str, str | None]] = []
    for n in range(count):
        item, reasons = (
            kinds[n // every % len(kinds)] if n % every == 0 and n // every < bad else (None, ("done", None))
        )
        items.append(item if item is not None else {"order_id": 10_000 + n, "member_id": "seller"})
        expected.append(reasons)
    return items, expected


@pytest.mark.parametrize(("count", "bad"), [(200, 14), (1000, 70)])
def test_cancel_many_completes_although_the_worker_is_killed(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path: Path, count: int, bad: int
) -> None:
    with temporary_installation(servers, admin, template_database, tmp_path, seed_bulk(count)) as running:
        _kill_and_finish(running, count, bad)


def _kill_and_finish(running: Installation, count: int, bad: int) -> None:
    items, expected = bulk(count, bad)
    running.start_worker(concurrency=1)
    progress: list[dict[str, Any]] = []
    with running.client() as client:
        # A locked order of the last set keeps the worker busy until it is killed.
        with locked_order(running.database_url, items[-1]["order_id"]):
            arguments = {"orders": items, "request_id": "bulk-1"}
            sent = client.send_task("orders.cancel_many", kwargs=arguments, queue="commands")
            wait_until(lambda: client.backend.get_task_meta(sent.id, cache=False)["status"] == "PROGRESS")
            progress.append(client.backend.get_task_meta(sent.id, cache=False)["result"])
            os.killpg(running.supervisor.pid("commands"), signal.SIGKILL)
            cut = running.count(OrderRow, status="CANCELLED")
            assert 0 < cut < count - bad
        # Expire the dead worker's lease, so that its message is reclaimed.
        queue = running.redis()
        for tag in wait_until(lambda: queue.zrange("unwind.unacked.index", 0, -1)):
            queue.zadd("unwind.unacked.index", {tag: 0})
        answer = sent.get(timeout=90, interval=0.1, on_message=lambda m: _note(m, progress))
    assert answer["outcome"] == "done"
    reasons = [(entry["outcome"], entry["code"]) for entry in answer["effects"]["answers"]]
    assert reasons == expected
    assert sum(1 for outcome, _ in reasons if outcome == "done") == count - bad
    assert [entry["request_id"] for entry in answer["effects"]["answers"]] == [f"bulk-1:{n}" for n in range(count)]
    assert progress[0]["of"] == count
    assert 0 < progress[0]["answered"] < count
    assert running.count(OrderRow, status="CANCELLED") == count - bad + 1
    cancelled = [event.order_id for event in running.events(type="orders.cancelled")]
    assert len(cancelled) == len(set(cancelled))
    units = sum(lot.quantity for lot in running.lots(seller_id="seller"))
    assert units == count + 1 - bad + 1 + 1  # one unit of each lot was never sold; the others came back


def _note(message: dict[str, Any], progress: list[dict[str, Any]]) -> None:
    if message.get("status") == "PROGRESS":
        progress.append(message["result"])
