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
from policies.history import order_state
from policies.options import Subject
from policies.timestamps import format_timestamp
from tasks.declarations import COMMANDS
from tests.builders import a_case
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from workers import queries
from workers.queries import InvalidQuery, parse_query

DAY = timedelta(days=1)


def see(market: Market, *words: str | int) -> Any:
    """One look at the clock's instant."""
    with market.simulation.database.transaction() as conn:
        return queries.run_query(conn, words, now=market.simulation.clock.instant)


def test_an_unknown_thing_is_nothing(market: Market) -> None:
    """`show` of an unknown thing gives null."""
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
        assert see(market, *words) is None, words
    assert see(market, "lots", "seller") == []
    assert see(market, "alerts", "--due-before", instant) == []


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
def test_words_that_ask_for_nothing_are_refused(words: list[Any]) -> None:
    """A malformed look is found before anything runs."""
    with pytest.raises(InvalidQuery):
        parse_query(words)


def test_an_order_is_shown_as_the_contract_has_it(market: Market) -> None:
    """The order's JSON, before and after a cancellation through NPB."""
    lot = market.lot(501, quantity=1000, unit_price="7.5000")
    market.order(1003, [(lot, 100)])
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.simulation.advance(FILED + WEEK + DAY)
    market.done("orders.cancel", order_id=1003, member_id="seller")
    seen = see(market, "order", 1003)
    assert {name: seen[name] for name in ("status", "basis", "cancelled_by", "total", "payment_status")} == {
        "status": "CANCELLED",
        "basis": "NPB",
        "cancelled_by": "seller",
        "total": "750.00",
        "payment_status": "None",
    }
    assert seen["fee"] == {
        "charged": "20.00",
        "charged_month": "2026-03",
        "net": "0.00",
        "reset": None,
        "credit": "-20.00",
        "credit_month": "2026-04",
    }
    (line,) = seen["lines"]
    assert (line["line_no"], line["quantity"], line["returned"], line["returned_to_lot"]) == (1, 100, 100, 501)
    assert seen["alert"]["unlocked_at"] == seen["alert"]["unlocks_at"] == format_timestamp(FILED + WEEK)
    assert [(row["event"], row["from"], row["to"]) for row in seen["timeline"]] == [
        ("orders.submitted", None, "PENDING"),
        ("npb.filed", "PENDING", "NPB"),
        ("npb.unlocked", "NPB", "NPB"),
        ("orders.cancelled", "NPB", "CANCELLED"),
    ]
    assert see(market, "lots", "seller")[0]["quantity"] == 1000
    assert see(market, "member", "buyer")["strikes"] == [1003]


def test_an_earlier_instant_shows_what_was_then(market: Market) -> None:
    """`--at T`: batch, removal, alert and cancellation are each there from their instant on, and not before."""
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
        return see(market, "order", 1003, "--at", format_timestamp(ORDERED + days * DAY))

    assert then(-1) is None
    assert [len(then(days)["lines"]) for days in (0, 0.9, 1, 5)] == [1, 1, 2, 2]
    assert [then(days)["total"] for days in (0, 1, 2.9, 3)] == ["10.00", "15.00", "15.00", "11.00"]
    assert [then(days)["lines"][0]["remaining"] for days in (2, 3)] == [10, 6]
    assert [[one["state"] for one in then(days)["removals"]] for days in (1, 2, 3)] == [[], ["pending"], ["approved"]]
    assert [then(days)["status"] for days in (0, 1, 3.5, 4, 5)] == ["PENDING", "UPDATED", "UPDATED", "OCR", "CANCELLED"]
    assert [(then(days)["ocr"] or {}).get("state") for days in (3, 4, 5)] == [None, "open", "agreed"]
    assert [then(days)["lines"][0]["returned"] for days in (4.9, 5)] == [0, 6]
    assert then(5) == see(market, "order", 1003)


def test_explain_looks_back_and_ahead(market: Market) -> None:
    """R26: the same question before, at and after the instant of the unlock, asked on the day of filing."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")

    def cancel(at: datetime) -> Any:
        seen = see(market, "explain", "order", 1003, "--at", format_timestamp(at))
        return next(one for one in seen["seller"] if one["action"] == "orders.cancel")

    assert cancel(FILED)["possible_from"] == format_timestamp(FILED + WEEK)
    assert cancel(FILED - DAY)["code"] == "NO_OPEN_REQUEST"
    assert cancel(FILED + WEEK)["possible"]
    assert not cancel(FILED + WEEK - timedelta(seconds=1))["possible"]


def test_a_terminated_member_can_neither_buy_nor_sell(market: Market) -> None:
    market.done("members.terminate", member_id="seller", staff="kim", comment="fraud")
    member = see(market, "member", "seller")
    assert (member["state"], member["can_buy"], member["can_sell"]) == ("terminated", False, False)
    market.done("members.reinstate", member_id="seller", staff="kim", comment="a mistake")
    member = see(market, "member", "seller")
    assert (member["state"], member["can_buy"], member["can_sell"]) == ("active", True, True)


def test_a_closed_account_is_seen_from_its_instant_on(market: Market) -> None:
    """R53: explain of a past instant knows whose account was closed then."""
    market.order(1003)
    market.at(ORDERED + DAY).done("members.terminate", member_id="buyer", staff="kim", comment="fraud")
    market.at(ORDERED + 2 * DAY).done("members.reinstate", member_id="buyer", staff="kim", comment="a mistake")
    possible = []
    for hours in (23, 24, 47, 48):
        at = format_timestamp(ORDERED + timedelta(hours=hours))
        seen = see(market, "explain", "order", 1003, "--at", at)
        possible.append(next(one["possible"] for one in seen["seller"] if one["action"] == "orders.cancel"))
    assert possible == [False, True, True, False]


@pytest.mark.guarantee("P4")
def test_a_look_sees_one_moment(market: Market, database_url: str) -> None:
    """P4: what is committed while somebody looks is not seen by halves."""
    market.order(1003)
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    looking = db.connect(database_url)
    now = market.simulation.clock.instant
    with looking.transaction() as conn:
        db.use_snapshot_isolation(conn)
        before = queries.run_query(conn, ["order", 1003], now=now)
        market.done("orders.cancel", order_id=1003, member_id="seller")
        assert queries.run_query(conn, ["order", 1003], now=now) == before
    looking.dispose()
    assert see(market, "order", 1003)["status"] == "CANCELLED"


def test_alerts_and_requests_are_found(market: Market) -> None:
    """`show alerts --due-before T` and `show request ID`."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", request_id="r-1")
    due = FILED + WEEK
    assert see(market, "alerts", "--due-before", format_timestamp(due)) == []
    (alert,) = see(market, "alerts", "--due-before", format_timestamp(due + timedelta(seconds=1)))
    assert (alert["order_id"], alert["kind"], alert["unlocks_at"]) == (1003, "NPB", format_timestamp(due))
    seen = see(market, "request", "r-1")
    assert (seen["task"], seen["outcome"], seen["answer"]["effects"]["status"]) == ("npb.file", "done", "NPB")


MOVES: tuple[tuple[str, dict[str, Any]], ...] = (
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


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_fold_to_the_row_and_options_tell_the_answers(market: Market, seed: int) -> None:
    """Promise 8: events give the row; and `orders.options` says exactly what the commands then answer."""
    random = Random(seed)
    market.order(1003)
    for _ in range(18):
        gap = random.choice((0, 1, 3600, 86400, 7 * 86400, 14 * 86400))
        market.simulation.advance(market.simulation.clock.instant + timedelta(seconds=gap))
        task, arguments = random.choice(MOVES[:-1] if random.random() < 0.8 else MOVES)
        member = random.choice(("buyer", "seller"))
        if random.random() < 0.2:
            payment = random.choice(("None", "Sent", "Received"))
            market.do("orders.record_payment", order_id=1003, payment_status=payment)
        announced = {
            one["action"]: one for one in market.done("orders.options", order_id=1003, member_id=member)["options"]
        }
        for action, option in announced.items():
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
            assert (answer["outcome"] == "done") is announced[task]["possible"]
        with market.simulation.database.transaction() as conn:
            row = orders.load_facts(conn, [1003], lock=False)[1003]
            now = market.simulation.clock.instant
            then = order.load_snapshot(conn, 1003, at=now, now=now)
            assert then is not None
            assert order_state(then.case.order) == order_state(row)
            assert order.show_order(conn, 1003, at=now, now=now) == order.show_order(conn, 1003, at=None, now=now)
            ahead = order.explain_order(conn, 1003, at=now, now=now)
            assert ahead == order.explain_order(conn, 1003, at=None, now=now)
