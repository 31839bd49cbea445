"""Tests of the SQL views against the command line, the declared columns and the reader's role."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sqlalchemy import Connection, create_engine, text

from models import dead_jobs
from models.ddl import grants
from models.ddl.views import VIEWS, View
from policies.timestamps import format_timestamp, parse_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from workers import show_queries

CONTRACT = Path(__file__).resolve().parents[3] / "contract"
MONTH_AFTER = FILED + timedelta(days=31)


@pytest.fixture
def past_market(market: Market) -> Market:
    """Orders cancelled in the same month, in the next one and through NRS, two waiting alerts, and a manual credit."""
    for order_id in range(1001, 1007):
        market.order(order_id)
    market.done("ocr.file", order_id=1001, member_id="seller", reason="S_MUTUAL", comment="agreed")
    market.done("orders.cancel", order_id=1001, member_id="seller", request_id="same-month")
    market.done("orders.record_payment", order_id=1001, payment_status="Received")
    market.at(FILED)
    for order_id in (1002, 1004):
        market.done("npb.file", order_id=order_id, member_id="seller", request_id=f"npb-{order_id}")
    market.done("nrs.file", order_id=1003, member_id="buyer", comment="silent")
    market.at(FILED + WEEK)
    market.simulation.do("npb.scan_open_alerts")
    market.done("orders.cancel", order_id=1002, member_id="seller", request_id="next-month")
    market.at(FILED + 2 * WEEK)
    market.simulation.do("alerts.scan_seller_alerts")
    market.done("orders.cancel", order_id=1003, member_id="buyer", request_id="no-credit")
    market.done("nrs.file", order_id=1005, member_id="buyer", comment="silent")
    market.done("npb.file", order_id=1006, member_id="seller")
    market.done("credits.post_manual", seller_id="seller", amount="3.00", staff="pat", comment="goodwill")
    assert market.code("orders.cancel", order_id=1006, member_id="seller", request_id="early") == "TOO_EARLY"
    market.done("sellers.set_automation", member_id="seller", cancel_after_unlock=30)
    return market


def run_query(market: Market, *words: str | int) -> Any:
    """Run a query at the simulation's instant."""
    with market.simulation.database.transaction() as conn:
        return show_queries.parse_query(words).read(conn, market.simulation.clock.instant)


def view_rows(market: Market, view: str, where: str = "true", **values: Any) -> list[dict[str, Any]]:
    """Rows of a view as a reader gets them, with timestamps in the contract's format."""
    with market.simulation.database.transaction() as conn:
        rows = conn.execute(text(f"SELECT * FROM unwind.{view} WHERE {where}"), values).mappings()  # noqa: S608 - a name of this repository
        return [
            {
                name: format_timestamp(value)
                if hasattr(value, "hour")
                else value.isoformat()
                if hasattr(value, "day")
                else value
                for name, value in row.items()
            }
            for row in rows
        ]


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_view_has_the_declared_columns(view: View, past_market: Market) -> None:
    """Dashboards rely on names, order and types; contract/ freezes them."""
    columns = past_market.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'unwind' AND table_name = :view "
        "ORDER BY ordinal_position",
        view=view.name,
    )
    assert [row.column_name for row in columns] == [name for name, _, _ in view.columns]
    schema = json.loads((CONTRACT / "views" / f"{view.name}.schema.json").read_text(encoding="utf-8"))
    rows = past_market.rows(f"SELECT row_to_json(v) AS row FROM unwind.{view.name} AS v")  # noqa: S608 - a name of this repository
    assert rows
    for row in rows:
        jsonschema.validate(row.row, schema)
    (comment,) = past_market.rows("SELECT obj_description(CAST(:view AS regclass)) AS text", view=f"unwind.{view.name}")
    assert comment.text == f"Version {view.version}. {view.description}"


def test_timeline_view_matches_show_order(past_market: Market) -> None:
    """R100: the same events in the same order with the same facts."""
    for order_id in range(1001, 1007):
        expected = run_query(past_market, "order", order_id)["timeline"]
        rows = sorted(
            view_rows(past_market, "v_order_timeline", "order_id = :id", id=order_id), key=lambda row: row["seq"]
        )
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        named = {"from_status": "from", "to_status": "to"}
        for row, event in zip(rows, expected, strict=True):
            for name in ("at", "event", "actor", "role", "from_status", "to_status", "note", "basis", "request_id"):
                assert row[name] == event[named.get(name, name)], (name, row, event)


def test_forecast_view_matches_the_command(past_market: Market) -> None:
    """P3: waiting alerts by the hour of their unlock, and overdue ones."""
    result = run_query(past_market, "forecast", "--days", "14")
    rows = view_rows(past_market, "v_unlock_forecast")
    assert {row["order_id"] for row in rows} == {1005, 1006, *(o["order_id"] for o in result["overdue_orders"])}
    by_hour: dict[str, int] = {}
    for row in rows:
        assert row["unlocks_hour"] == format_timestamp(parse_timestamp(row["unlocks_at"]).replace(minute=0, second=0))
        if parse_timestamp(row["unlocks_at"]) > past_market.simulation.clock.instant:
            by_hour[row["unlocks_hour"]] = by_hour.get(row["unlocks_hour"], 0) + 1
    assert {credit["hour"]: credit["total"] for credit in result["hours"]} == by_hour
    assert result["total"] == 2
    assert [(credit["npb"], credit["nrs"]) for credit in result["hours"]] == [(1, 0), (0, 1)]


def test_due_alert_is_overdue_until_it_is_unlocked(past_market: Market) -> None:
    """P3: an alert is due at its instant, and overdue until a sweep unlocks it."""
    due = FILED + 3 * WEEK
    for seconds, overdue in ((-1, 0), (0, 1), (1, 1)):
        past_market.at(due + timedelta(seconds=seconds))
        result = run_query(past_market, "forecast", "--days", "14")
        assert result["overdue"] == len(result["overdue_orders"]) == overdue
        assert result["total"] == 2 - overdue
    past_market.simulation.do("npb.scan_open_alerts")
    assert run_query(past_market, "forecast", "--days", "14")["overdue"] == 0
    assert run_query(past_market, "forecast", "--days", "1")["later"] == 1


def test_credit_view_matches_the_command(past_market: Market) -> None:
    """R83, R84, R85: reset in the same month, credit on the next bill, nothing for NRS, and a manual credit."""
    expected = run_query(past_market, "credits", "seller")["credits"]
    rows = view_rows(past_market, "v_fee_credit", "seller_id = 'seller'")
    key = lambda credit: (str(credit["order_id"]), credit["kind"])  # noqa: E731 - one use, one line
    for row, credit in zip(sorted(rows, key=key), sorted(expected, key=key), strict=True):
        for name in credit.keys() - {"where"}:
            assert row[name] == credit[name], name
    state_by_order = {
        credit["order_id"]: (credit["kind"], credit["state"], credit["bill_month"]) for credit in expected
    }
    assert state_by_order == {
        1001: ("reset", "posted", "2026-03"),
        1002: ("credit", "posted", "2026-04"),
        1003: ("none", "stays", None),
        None: ("manual_credit", "posted", "2026-04"),
    }
    where = {credit["order_id"]: credit["where"] for credit in expected}
    assert "removed from the bill for March 2026" in where[1001]
    assert "on the bill for April 2026, which is still open" in where[1002]
    assert "The fee stays" in where[1003]
    past_market.at(MONTH_AFTER)
    past_market.simulation.do("bills.issue")
    (issued,) = [
        credit for credit in run_query(past_market, "credits", "seller")["credits"] if credit["order_id"] == 1002
    ]
    assert "on the bill for April 2026, issued on 2026-05-05" in issued["where"]
    assert run_query(past_market, "order", 1002)["credits"] == [issued]


def test_credit_that_is_pending_or_dead_is_not_shown_as_posted(market: Market) -> None:
    market.order(1001)
    market.done("ocr.file", order_id=1001, member_id="seller", reason="S_MUTUAL", comment="agreed")
    market.simulation.do("orders.cancel", order_id=1001, member_id="seller")
    (pending_credit,) = run_query(market, "credits", "seller")["credits"]
    assert (pending_credit["state"], pending_credit["posted_at"]) == ("promised", None)
    assert "is being posted" in pending_credit["where"]
    with market.simulation.database.transaction() as conn:
        conn.execute(text("UPDATE unwind.outbox SET state = 'dead' WHERE key = 'fee:1001'"))
        (dead_credit,) = show_queries.parse_query(["credits", "seller"]).read(conn, ORDERED)["credits"]
        assert dead_credit["state"] == "given_up"
        assert "./run jobs dead" in dead_credit["where"]
        conn.execute(text("UPDATE unwind.outbox SET state = 'due' WHERE key = 'fee:1001'"))
    market.simulation.process_outbox()
    assert run_query(market, "credits", "seller")["credits"][0]["state"] == "posted"


def test_request_view_shows_each_state(past_market: Market) -> None:
    with past_market.simulation.database.transaction() as conn:
        conn.execute(
            text("SELECT unwind.submit_command('npb.remove', CAST(:payload AS jsonb), 'by-sql')"),
            {"payload": '{"order_id": 1006, "member_id": "seller"}'},
        )
        dead_jobs.park_job(
            conn,
            task="orders.cancel",
            message_id="lost",
            arguments={"order_id": 1006},
            error="Broken",
            attempts=9,
            now=past_market.simulation.clock.instant,
        )
    expected = {
        "same-month": ("answered", "done", "message"),
        "early": ("answered", "refused", "message"),
        "by-sql": ("waiting", None, "sql"),
        "lost": ("dead", None, "message"),
    }
    for request_id, columns in expected.items():
        shown = run_query(past_market, "request", request_id)
        (row,) = view_rows(past_market, "v_request_status", "request_id = :id", id=request_id)
        assert (row["state"], row["outcome"], row["door"]) == columns
        assert {name: shown[name] for name in row} == row
    assert run_query(past_market, "request", "never") is None


def test_late_payments_are_those_of_the_command(past_market: Market) -> None:
    """R107: open ones are listed; the view keeps the settled ones, too."""
    (row,) = view_rows(past_market, "v_late_payment")
    (shown,) = run_query(past_market, "late-payments")
    assert {name: shown.get(name) for name in row} == row
    past_market.done("orders.settle_late_payment", order_id=1001, staff="kim", comment="sent back")
    (row,) = view_rows(past_market, "v_late_payment")
    assert (row["settled_at"], row["settled_by"]) == (
        format_timestamp(past_market.simulation.clock.instant),
        "staff:kim",
    )
    assert run_query(past_market, "late-payments") == []


def test_sweep_view_matches_the_command(past_market: Market) -> None:
    """P3: shows in which hours a sweep found work."""
    rows = view_rows(past_market, "v_sweep_history")
    assert run_query(past_market, "sweeps") == sorted(rows, key=lambda row: (row["sweep"], row["hour"]))
    scans = [row for row in rows if row["sweep"] == "npb.scan_open_alerts"]
    assert sum(row["found"] for row in scans) == scans[0]["found_ever"] == 2
    assert {row["hour"] for row in scans} == {format_timestamp(FILED + WEEK)}


def test_idle_sweeps_leave_no_rows(market: Market) -> None:
    """Rows for idle seconds would be 86,400 a day; a gap of more than three minutes is recorded."""
    for seconds in (0, 180, 361):
        market.at(ORDERED + timedelta(seconds=seconds))
        market.simulation.do("npb.scan_open_alerts")
    (row,) = view_rows(market, "v_sweep_history", "sweep = 'npb.scan_open_alerts'")
    assert (row["runs"], row["found"], row["longest_gap_seconds"]) == (1, 0, 181)


@pytest.fixture
def reader(past_market: Market, database_url: str) -> Iterator[Connection]:
    """A connection with the reader role."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        conn.execute(text(f"SET ROLE {grants.READER_ROLE}"))
        yield conn
        conn.rollback()
    engine.dispose()


def test_readers_may_read_every_view(reader: Connection) -> None:
    """The tables of commands and outbox messages below the views are closed to readers."""
    for view in VIEWS:
        assert reader.execute(text(f"SELECT count(*) FROM unwind.{view.name}")).scalar_one() > 0  # noqa: S608 - a name of this repository
