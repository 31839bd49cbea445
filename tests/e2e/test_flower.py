"""Does Flower show our tasks, states and queues, and may those who look do nothing else?"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from tests.e2e.nodes import ProcessNode, wait_until
from workers.servers import free_port


@pytest.fixture
def flower(celery_setup: CeleryTestSetup, node_environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Flower as `up` starts it, after the worker; gives its address."""
    port = free_port()
    words = ["celery", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={port}", "--read_only=True"]
    node = ProcessNode("flower", words, node_environment, tmp_path)
    address = f"http://127.0.0.1:{port}"
    wait_until(lambda: _page(f"{address}/healthcheck") is not None, what="Flower's first answer")
    yield address
    node.remove()


def _page(url: str, data: bytes | None = None) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None


def _tasks(address: str) -> list[dict[str, Any]]:
    columns = "&".join(f"columns[{n}][data]={name}" for n, name in enumerate(("name", "uuid", "state", "received")))
    asked = f"draw=1&start=0&length=100&search[value]=&order[0][column]=0&order[0][dir]=asc&{columns}"
    page = _page(f"{address}/tasks/datatable", asked.encode())
    rows: list[dict[str, Any]] = json.loads(page)["data"] if page else []
    return rows


def test_flower_shows_tasks_states_and_queues_but_no_comment(flower: str, celery_setup: CeleryTestSetup) -> None:
    """X10, F64: the window of ops, over HTTP."""

    def seen() -> dict[str, Any] | None:
        # Flower listens to events and repeats nothing that came before it listened.
        sent = {"order_id": 1003, "member_id": "buyer", "comment": "very private words"}
        celery_setup.app.send_task("npb.respond", kwargs=sent, queue="commands").get(timeout=30)
        rows = [row for row in _tasks(flower) if row["name"] == "npb.respond" and row["state"] == "SUCCESS"]
        return rows[0] if rows else None

    row = wait_until(seen, what="the task in Flower")
    assert "order_id=1003" in str(row["kwargs"])
    assert "private" not in str(_tasks(flower))
    page = _page(f"{flower}/task/{row['uuid']}")
    assert page is not None
    assert "private" not in page
    queues = wait_until(
        lambda: "consequences" in (_page(f"{flower}/broker") or "") and _page(f"{flower}/broker"), what="queues"
    )
    assert all(queue in queues for queue in ("commands", "consequences", "notices", "sweeps"))
    assert "e2e@" in (_page(f"{flower}/workers") or "")


def test_nobody_can_give_commands_through_flower(flower: str) -> None:
    """X10: a login there is not an authorisation, so outside the demo it only looks."""
    body = json.dumps({"kwargs": {"order_id": 1, "staff": "me"}}).encode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{flower}/api/task/async-apply/npb.remove", body), timeout=5)
    refused.value.close()
    assert refused.value.code in (401, 403, 404, 405)
