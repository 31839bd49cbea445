"""The feed of events: complete, in order, without gaps, duplicates or personal text."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models import feed
from tests.plugins.market import FILED, WEEK, Market
from workers.embedded.client import ServerUrls


def read_all(market: Market, *, page: int = 7) -> list[dict[str, Any]]:
    market.feed()
    cursor: str | None = None
    events: list[dict[str, Any]] = []
    while True:
        with market.simulation.database.transaction() as conn:
            rows = feed.events_after(conn, cursor, page)
        if not rows:
            return events
        cursor = rows[-1][0]
        events += [event for _, event in rows]


def test_events_are_valid_cloudevents_in_order(market: Market) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", comment="a private word")
    market.at(FILED + WEEK).done("npb.scan_open_alerts")
    market.done("orders.cancel", order_id=1003, member_id="seller", comment="another private word")
    market.done("members.terminate", member_id="buyer", staff="Kim", comment="a private word")
    events = read_all(market)
    of_order = [(e["type"], e["sequence"]) for e in events if e.get("subject") == "order/1003"]
    assert of_order == [("orders.submitted", 1), ("npb.filed", 2), ("npb.unlocked", 3), ("orders.cancelled", 4)]
    assert {"inventory.lot_changed", "fees.charged", "credits.posted"} <= {e["type"] for e in events}
    assert all(e["specversion"] == "1.0" and e["source"] == "/unwind" and e["time"].endswith("Z") for e in events)
    assert len({e["id"] for e in events}) == len(events)
    assert all(isinstance(e["data"]["changes"], dict) for e in events if "changes" in e["data"])
    assert "members.terminated" in {e["type"] for e in events}
    assert "private word" not in json.dumps(events)


def test_a_late_commit_is_neither_missed_nor_repeated(market: Market, database_url: str) -> None:
    plain = database_url.replace("postgresql+psycopg://", "postgresql://")
    row = (
        "INSERT INTO unwind.events (at, type, actor, role, note, changes) "
        "VALUES (clock_timestamp(), %s, 'x', 'x', '', '{}')"
    )
    with psycopg.connect(plain) as slow, psycopg.connect(plain) as quick:
        slow.execute(row, ["test.slow"])
        quick.execute(row, ["test.quick"])
        quick.commit()
        with market.simulation.database.transaction() as conn:
            early = feed.events_after(conn, None, 100)
        assert [e["type"] for _, e in early if e["type"].startswith("test.")] == []
        slow.commit()
    market.feed()
    cursor = early[-1][0] if early else None
    with market.simulation.database.transaction() as conn:
        late = feed.events_after(conn, cursor, 100)
    assert [e["type"] for _, e in late] == ["test.slow", "test.quick"]


@pytest.mark.parametrize("cursor", ["", "1", "1.2", "a.b.c", "1.2.3.4", "1.1.1; DROP TABLE x", "-1.1.1"])
def test_an_invalid_cursor_is_an_error(market: Market, database_url: str, cursor: str) -> None:
    plain = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain) as conn, pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("SELECT * FROM unwind.events_after(%s, 10)", [cursor])


def test_the_feed_is_empty_after_its_last_event(market: Market) -> None:
    market.order(1003)
    market.feed()
    with market.simulation.database.transaction() as conn:
        last = feed.events_after(conn, None, 10_000)[-1][0]
    with market.simulation.database.transaction() as conn:
        assert feed.events_after(conn, last, 100) == []
    market.at(FILED + timedelta(seconds=1)).done("npb.file", order_id=1003, member_id="seller")
    market.feed()
    with market.simulation.database.transaction() as conn:
        assert [e["type"] for _, e in feed.events_after(conn, last, 100)] == ["npb.filed"]


def test_transactions_of_other_databases_do_not_delay_the_feed(market: Market, servers: ServerUrls) -> None:
    with psycopg.connect(servers.database_url.replace("postgresql+psycopg://", "postgresql://")) as elsewhere:
        elsewhere.execute("SELECT pg_current_xact_id()")
        market.order(1003)
        assert "orders.submitted" in {e["type"] for e in read_all(market)}
