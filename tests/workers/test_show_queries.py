"""Tests of `show`, `explain` and `orders.options`, at the current instant and at earlier ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from models import orders
from models.db import database as db
from models.queries import order
from policies.cases import Actor
from policies.history import write_history_part
from policies.options import Subject
from policies.timestamps import format_timestamp
from tasks.declarations import COMMANDS
from tests.builders import a_case
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from workers import show_queries
from workers.show_queries import parse_query

DAY = timedelta(days=1)


def run_query(market: Market, *words: str | int) -> Any:
    """Run a query at the simulation's instant."""
    with market.simulation.database.transaction() as conn:
        return show_queries.parse_query(words).read(conn, market.simulation.clock.instant)


def test_unknown_objects_are_null(market: Market) -> None:
    instant = format_timestamp(ORDERED)
    for words in (
        ("order", 5),
        ("explain", "order", 5),
        ("lots", "nobody"),
        ("bill", "nobody", "2026-03"),
        ("member", "nobody"),
        ("notices", "--order", 5),
        ("request", "never"),
        ("order", 5, "--at", instant),
    ):
        assert run_query(market, *words) is None, words
    assert run_query(market, "lots", "seller") == []
    assert run_query(market, "alerts", "--due-before", instant) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["order"],
        ["order", "x"],
        ["order", -1],
        ["order", 1.5],
        ["order", True],
        ["order", 1, 2],
        ["order", 1, "--at"],
        ["order", 1, "--at", "yesterday"],
        ["explain", 1003],
        ["bill", "s", "2026-13"],
        ["bill", "s", "2026-3"],
        ["notices", 1003],
        ["alerts", "--due-before", "2026-03-28T10:00:00"],
        ["member", "a", "--at", "2026-03-28T10:00:00Z"],
        ["order", 2**63],
        [["order", 1]],
        ["explain", "order", "--help"],
    ],
)
def test_malformed_queries_are_refused(words: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_query(words)


def test_order_before_and_after_a_cancellation_through_npb(market: Market) -> None:
    lot = market.lot(501, quantity=1000, unit_price="7.5000")
    market.order(1003, [(lot, 100)])
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.simulation.advance(FILED + WEEK + DAY)
    market.done("orders.cancel", order_id=1003, member_id="seller")
    result = run_query(market, "order", 1003)
    assert {name: result[name] for name in ("status", "basis", "cancelled_by", "total", "payment_status")} == {
        "status": "CANCELLED",
        "basis": "NPB",
        "cancelled_by": "seller",
        "total": "750.00",
        "payment_status": "None",
    }
    assert result["fee"] == {
        "charged": "20.00",
        "charged_month": "2026-03",
        "net": "0.00",
        "reset": None,
        "credit": "-20.00",
        "credit_month": "2026-04",
    }
    (line,) = result["lines"]
    assert (line["line_no"], line["quantity"], line["returned"], line["returned_to_lot"]) == (1, 100, 100, 501)
    assert result["alert"]["unlocked_at"] == result["alert"]["unlocks_at"] == format_timestamp(FILED + WEEK)
    assert [(row["event"], row["from"], row["to"]) for row in result["timeline"]] == [
        ("orders.submitted", None, "PENDING"),
        ("npb.filed", "PENDING", "NPB"),
        ("npb.unlocked", "NPB", "NPB"),
        ("orders.cancelled", "NPB", "CANCELLED"),
    ]
    assert run_query(market, "lots", "seller")[0]["quantity"] == 1000
    assert run_query(market, "member", "buyer")["strikes"] == [1003]


def test_order_is_shown_as_of_an_earlier_instant(market: Market) -> None:
    lot = market.lot(501, quantity=1000, unit_price="1.0000")
    market.order(1003, [(lot, 10)])
    market.at(ORDERED + DAY).done("orders.add_batch", order_id=1003, lines=[{"lot_id": lot, "quantity": 5}])
    market.at(ORDERED + 2 * DAY)
    removal = market.done("removals.request", order_id=1003, member_id="buyer", lines=[{"line_no": 1, "quantity": 4}])[
        "removal_id"
    ]
    market.at(ORDERED + 3 * DAY).done("removals.approve", removal_id=removal, member_id="seller")
    market.at(ORDERED + 4 * DAY).done(
        "ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed by mail"
    )
    market.at(ORDERED + 5 * DAY).done("orders.cancel", order_id=1003, member_id="seller")

    def then(days: float) -> Any:
        return run_query(market, "order", 1003, "--at", format_timestamp(ORDERED + days * DAY))

    assert then(-1) is None
    assert [len(then(days)["lines"]) for days in (0, 0.9, 1, 5)] == [1, 1, 2, 2]
    assert [then(days)["total"] for days in (0, 1, 2.9, 3)] == ["10.00", "15.00", "15.00", "11.00"]
    assert [then(days)["lines"][0]["remaining"] for days in (2, 3)] == [10, 6]
    assert [[entry["state"] for entry in then(days)["removals"]] for days in (1, 2, 3)] == [
        [],
        ["pending"],
        ["approved"],
    ]
    assert [then(days)["status"] for days in (0, 1, 3.5, 4, 5)] == ["PENDING", "UPDATED", "UPDATED", "OCR", "CANCELLED"]
    assert [(then(days)["ocr"] or {}).get("state") for days in (3, 4, 5)] == [None, "open", "agreed"]
    assert [then(days)["lines"][0]["returned"] for days in (4.9, 5)] == [0, 6]
    assert then(5) == run_query(market, "order", 1003)


def test_explain_answers_for_past_and_future_instants(market: Market) -> None:
    """R26: a second before, at and after the unlock, asked on the day of filing."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")

    def cancel(at: datetime) -> Any:
        result = run_query(market, "explain", "order", 1003, "--at", format_timestamp(at))
        return next(entry for entry in result["seller"] if entry["action"] == "orders.cancel")

    assert cancel(FILED)["possible_from"] == format_timestamp(FILED + WEEK)
    assert cancel(FILED - DAY)["code"] == "NO_OPEN_REQUEST"
    assert cancel(FILED + WEEK)["possible"]
    assert not cancel(FILED + WEEK - timedelta(seconds=1))["possible"]


def test_terminated_member_can_neither_buy_nor_sell(market: Market) -> None:
    market.done("members.terminate", member_id="seller", staff="kim", comment="fraud")
    member = run_query(market, "member", "seller")
    assert (member["state"], member["can_buy"], member["can_sell"]) == ("terminated", False, False)
    market.done("members.reinstate", member_id="seller", staff="kim", comment="a mistake")
    member = run_query(market, "member", "seller")
    assert (member["state"], member["can_buy"], member["can_sell"]) == ("active", True, True)


def test_explain_considers_when_an_account_was_closed(market: Market) -> None:
    """R53: `explain` of a past instant uses the account's state of then."""
    market.order(1003)
    market.at(ORDERED + DAY).done("members.terminate", member_id="buyer", staff="kim", comment="fraud")
    market.at(ORDERED + 2 * DAY).done("members.reinstate", member_id="buyer", staff="kim", comment="a mistake")
    possible = []
    for hours in (23, 24, 47, 48):
        at = format_timestamp(ORDERED + timedelta(hours=hours))
        result = run_query(market, "explain", "order", 1003, "--at", at)
        possible.append(next(entry["possible"] for entry in result["seller"] if entry["action"] == "orders.cancel"))
    assert possible == [False, True, True, False]


@pytest.mark.guarantee("P4")
def test_query_uses_one_snapshot(market: Market, database_url: str) -> None:
    """P4: a concurrent commit doesn't show."""
    market.order(1003)
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    reader = db.connect(database_url)
    now = market.simulation.clock.instant
    with reader.transaction() as conn:
        db.use_snapshot_isolation(conn)
        before = show_queries.parse_query(["order", 1003]).read(conn, now)
        market.done("orders.cancel", order_id=1003, member_id="seller")
        assert show_queries.parse_query(["order", 1003]).read(conn, now) == before
    reader.dispose()
    assert run_query(market, "order", 1003)["status"] == "CANCELLED"


def test_alerts_by_due_time_and_requests_by_id(market: Market) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", request_id="r-1")
    due = FILED + WEEK
    assert run_query(market, "alerts", "--due-before", format_timestamp(due)) == []
    (alert,) = run_query(market, "alerts", "--due-before", format_timestamp(due + timedelta(seconds=1)))
    assert (alert["order_id"], alert["kind"], alert["unlocks_at"]) == (1003, "NPB", format_timestamp(due))
    result = run_query(market, "request", "r-1")
    assert (result["task"], result["outcome"], result["answer"]["effects"]["status"]) == ("npb.file", "done", "NPB")


RANDOM_COMMANDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ocr.file", {"reason": "B_MUTUAL", "comment": "agreed"}),
    ("ocr.file", {"reason": "S_MUTUAL", "comment": "agreed"}),
    ("ocr.decline", {}),
    ("ocr.withdraw", {}),
    ("npb.file", {}),
    ("npb.respond", {"comment": "I will pay"}),
    ("npb.accept_penalty", {}),
    ("npb.take_back", {}),
    ("npb.remove", {}),
    ("nrs.file", {"comment": "silent"}),
    ("nrs.remove", {}),
    ("nss.file", {"grounds": "INCOMPLETE", "comment": "parts missing"}),
    ("nss.respond", {"comment": "sent"}),
    ("orders.set_status", {"status": "READY"}),
    ("orders.set_status", {"status": "PAID"}),
    ("orders.cancel", {}),
)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))])
def test_events_replay_to_the_row_and_options_predict_answers(market: Market, seed: int) -> None:
    random = Random(seed)
    market.order(1003)
    for _ in range(18):
        gap = random.choice((0, 1, 3600, 86400, 7 * 86400, 14 * 86400))
        market.simulation.advance(market.simulation.clock.instant + timedelta(seconds=gap))
        task, arguments = random.choice(RANDOM_COMMANDS[:-1] if random.random() < 0.8 else RANDOM_COMMANDS)
        member = random.choice(("buyer", "seller"))
        if random.random() < 0.2:
            payment = random.choice(("None", "Sent", "Received"))
            market.do("orders.record_payment", order_id=1003, payment_status=payment)
        options = {
            entry["action"]: entry
            for entry in market.done("orders.options", order_id=1003, member_id=member)["options"]
        }
        for action, option in options.items():
            if option["possible"] or action == "orders.set_status":
                continue
            extra = COMMANDS[action].option_arguments(Subject(a_case(), {1: 10}), Actor(member))
            answer = market.do(action, order_id=1003, member_id=member, **extra)
            assert (answer["outcome"], answer["code"], answer["possible_from"], answer["message"]) == (
                "refused",
                option["code"],
                option["possible_from"],
                option["why"],
            )
        answer = market.do(task, order_id=1003, member_id=member, **arguments)
        if task not in ("ocr.file", "orders.set_status"):
            assert (answer["outcome"] == "done") is options[task]["possible"]
        with market.simulation.database.transaction() as conn:
            row = orders.send_orders_query(conn, [1003], lock=False)({})[1003]
            now = market.simulation.clock.instant
            then = order.load_order_snapshot(conn, 1003, at=now, now=now)
            assert then is not None
            assert write_history_part("order", then.case.order) == write_history_part("order", row)
            assert order.show_order(conn, 1003, at=now, now=now) == order.show_order(conn, 1003, at=None, now=now)
            ahead = order.explain_order(conn, 1003, at=now, now=now)
            assert ahead == order.explain_order(conn, 1003, at=None, now=now)
