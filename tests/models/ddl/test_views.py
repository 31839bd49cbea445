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
from workers import queries

CONTRACT = Path(__file__).resolve().parents[3] / "contract"
MONTH_AFTER = FILED + timedelta(days=31)


@pytest.fixture
def lived(market: Market) -> Market:
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
    return market


def see(market: Market, *words: str | int) -> Any:
    """One look at the clock's instant."""
    with market.simulation.database.transaction() as conn:
        return queries.run_query(conn, words, now=market.simulation.clock.instant)


def read(market: Market, view: str, where: str = "true", **values: Any) -> list[dict[str, Any]]:
    """Rows of a view as a dashboard gets them: the numbers and texts of JSON, instants as we write them."""
    with market.simulation.database.transaction() as conn:
        rows = conn.execute(text(f"SELECT * FROM unwind.{view} WHERE {where}"), values).mappings()  # noqa: S608 - ours
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
def test_a_view_has_the_columns_that_were_promised(view: View, lived: Market) -> None:
    columns = lived.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'unwind' AND table_name = :view "
        "ORDER BY ordinal_position",
        view=view.name,
    )
    assert [row.column_name for row in columns] == [name for name, _, _ in view.columns]
    schema = json.loads((CONTRACT / "views" / f"{view.name}.schema.json").read_text(encoding="utf-8"))
    rows = lived.rows(f"SELECT row_to_json(v) AS row FROM unwind.{view.name} AS v")  # noqa: S608 - ours
    assert rows
    for row in rows:
        jsonschema.validate(row.row, schema)
    (said,) = lived.rows("SELECT obj_description(CAST(:view AS regclass)) AS said", view=f"unwind.{view.name}")
    assert said.said == f"Version {view.version}. {view.description}"


def test_the_timeline_is_that_of_show_order(lived: Market) -> None:
    """R100: the same events in the same order, with who, what, from, to, why and through which request."""
    for order_id in range(1001, 1007):
        shown = see(lived, "order", order_id)["timeline"]
        rows = sorted(read(lived, "v_order_timeline", "order_id = :id", id=order_id), key=lambda row: row["seq"])
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        named = {"from_status": "from", "to_status": "to"}
        for row, event in zip(rows, shown, strict=True):
            for name in ("at", "event", "actor", "role", "from_status", "to_status", "note", "basis", "request_id"):
                assert row[name] == event[named.get(name, name)], (name, row, event)


def test_the_forecast_is_that_of_the_command(lived: Market) -> None:
    """P3: hour by hour what will unlock; an alert that has unlocked is not in it, an overdue one is on top."""
    seen = see(lived, "forecast", "--days", "14")
    rows = read(lived, "v_unlock_forecast")
    assert {row["order_id"] for row in rows} == {1005, 1006, *(o["order_id"] for o in seen["overdue_orders"])}
    by_hour: dict[str, int] = {}
    for row in rows:
        assert row["unlocks_hour"] == format_timestamp(parse_timestamp(row["unlocks_at"]).replace(minute=0, second=0))
        if parse_timestamp(row["unlocks_at"]) > lived.simulation.clock.instant:
            by_hour[row["unlocks_hour"]] = by_hour.get(row["unlocks_hour"], 0) + 1
    assert {one["hour"]: one["total"] for one in seen["hours"]} == by_hour
    assert seen["total"] == 2
    assert [(one["npb"], one["nrs"]) for one in seen["hours"]] == [(1, 0), (0, 1)]


def test_what_is_due_and_not_unlocked_is_overdue(lived: Market) -> None:
    """P3: at the very instant an alert is due; until a sweep has seen it, it is overdue and not to come."""
    due = FILED + 3 * WEEK
    for seconds, overdue in ((-1, 0), (0, 1), (1, 1)):
        lived.at(due + timedelta(seconds=seconds))
        seen = see(lived, "forecast", "--days", "14")
        assert seen["overdue"] == len(seen["overdue_orders"]) == overdue
        assert seen["total"] == 2 - overdue
    lived.simulation.do("npb.scan_open_alerts")
    assert see(lived, "forecast", "--days", "14")["overdue"] == 0
    assert see(lived, "forecast", "--days", "1")["later"] == 1


def test_credits_are_those_of_the_command_and_say_where_they_are(lived: Market) -> None:
    """R83, R84, R85, KB55: reset in the same month, credit on the next bill, nothing for NRS, and a credit by hand."""
    shown = see(lived, "credits", "seller")["credits"]
    rows = read(lived, "v_fee_credit", "seller_id = 'seller'")
    key = lambda one: (str(one["order_id"]), one["kind"])  # noqa: E731 - one use, one line
    for row, one in zip(sorted(rows, key=key), sorted(shown, key=key), strict=True):
        for name in one.keys() - {"where"}:
            assert row[name] == one[name], name
    told = {one["order_id"]: (one["kind"], one["state"], one["bill_month"]) for one in shown}
    assert told == {
        1001: ("reset", "posted", "2026-03"),
        1002: ("credit", "posted", "2026-04"),
        1003: ("none", "stays", None),
        None: ("manual_credit", "posted", "2026-04"),
    }
    where = {one["order_id"]: one["where"] for one in shown}
    assert "taken off the bill of March 2026" in where[1001]
    assert "on the bill of April 2026, which is still open" in where[1002]
    assert "The fee stays" in where[1003]
    lived.at(MONTH_AFTER)
    lived.simulation.do("bills.issue")
    (issued,) = [one for one in see(lived, "credits", "seller")["credits"] if one["order_id"] == 1002]
    assert "on the bill of April 2026, made on 2026-05-05" in issued["where"]
    assert see(lived, "order", 1002)["credits"] == [issued]


def test_a_credit_that_is_on_its_way_or_was_given_up_says_so(market: Market) -> None:
    """Nobody is told that money is there before it is."""
    market.order(1001)
    market.done("ocr.file", order_id=1001, member_id="seller", reason="S_MUTUAL", comment="agreed")
    market.simulation.do("orders.cancel", order_id=1001, member_id="seller")
    (promised,) = see(market, "credits", "seller")["credits"]
    assert (promised["state"], promised["posted_at"]) == ("promised", None)
    assert "on its way" in promised["where"]
    with market.simulation.database.transaction() as conn:
        conn.execute(text("UPDATE unwind.outbox SET state = 'dead' WHERE key = 'fee:1001'"))
        (given_up,) = queries.run_query(conn, ["credits", "seller"], now=ORDERED)["credits"]
        assert given_up["state"] == "given_up"
        assert "./run jobs dead" in given_up["where"]
        conn.execute(text("UPDATE unwind.outbox SET state = 'due' WHERE key = 'fee:1001'"))
    market.simulation.process_outbox()
    assert see(market, "credits", "seller")["credits"][0]["state"] == "posted"


def test_a_request_is_found_whatever_became_of_it(lived: Market) -> None:
    """Answered, refused, waiting at the SQL interface, or given up: support sees which."""
    with lived.simulation.database.transaction() as conn:
        conn.execute(
            text("SELECT unwind.submit_command('npb.remove', CAST(:payload AS jsonb), 'by-sql')"),
            {"payload": '{"order_id": 1006, "member_id": "seller"}'},
        )
        dead_jobs.park(
            conn,
            task="orders.cancel",
            message_id="lost",
            arguments={"order_id": 1006},
            error="Broken",
            attempts=9,
            now=lived.simulation.clock.instant,
        )
    expected = {
        "same-month": ("answered", "done", "message"),
        "early": ("answered", "refused", "message"),
        "by-sql": ("waiting", None, "sql"),
        "lost": ("dead", None, "message"),
    }
    for request_id, wanted in expected.items():
        shown = see(lived, "request", request_id)
        (row,) = read(lived, "v_request_status", "request_id = :id", id=request_id)
        assert (row["state"], row["outcome"], row["door"]) == wanted
        assert {name: shown[name] for name in row} == row
    assert see(lived, "request", "never") is None


def test_late_payments_are_those_of_the_command(lived: Market) -> None:
    """R107: open ones are listed; the view keeps the settled ones, too."""
    (row,) = read(lived, "v_late_payment")
    assert see(lived, "late-payments") == [{k: v for k, v in row.items() if not k.startswith("settled")}]
    lived.done("orders.settle_late_payment", order_id=1001, staff="kim", comment="sent back")
    (row,) = read(lived, "v_late_payment")
    assert (row["settled_at"], row["settled_by"]) == (format_timestamp(lived.simulation.clock.instant), "staff:kim")
    assert see(lived, "late-payments") == []


def test_the_history_of_sweeps_is_that_of_the_command(lived: Market) -> None:
    """P3: in which hour a sweep found something, and that it had not run for a week before."""
    rows = read(lived, "v_sweep_history")
    assert see(lived, "sweeps") == sorted(rows, key=lambda row: (row["sweep"], row["hour"]))
    scans = [row for row in rows if row["sweep"] == "npb.scan_open_alerts"]
    assert sum(row["found"] for row in scans) == scans[0]["found_ever"] == 2
    assert {row["hour"] for row in scans} == {format_timestamp(FILED + WEEK)}


def test_an_idle_sweep_leaves_no_history(market: Market) -> None:
    for seconds in (0, 180, 361):
        market.at(ORDERED + timedelta(seconds=seconds))
        market.simulation.do("npb.scan_open_alerts")
    (only,) = read(market, "v_sweep_history", "sweep = 'npb.scan_open_alerts'")
    assert (only["runs"], only["found"], only["longest_gap_seconds"]) == (1, 0, 181)


@pytest.fixture
def dashboard(lived: Market, database_url: str) -> Iterator[Connection]:
    """Somebody who may only read."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        conn.execute(text(f"SET ROLE {grants.READER_ROLE}"))
        yield conn
        conn.rollback()
    engine.dispose()


def test_a_dashboard_may_read_every_view(dashboard: Connection) -> None:
    """The reader's role sees the views though the tables of commands and promises below them are closed to it."""
    for view in VIEWS:
        assert dashboard.execute(text(f"SELECT count(*) FROM unwind.{view.name}")).scalar_one() > 0  # noqa: S608 - ours
