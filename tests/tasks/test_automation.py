"""Automatic cancellation on a real database: settings, stored deadlines, sweeps and the notices to members."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models.integrity import invariants
from models.stored_answers import RequestRow
from policies.automation_settings import MAX_EXCLUDED_BUYERS
from policies.timestamps import format_timestamp
from tasks.automation import CancelSweep, WarningSweep, cancel_due_orders
from tasks.sweeps import sweep
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from tests.plugins.servers import libpq_url
from tests.tasks.automation import DAY, DUE, SECOND, UNLOCKED, automate, deadlines, emails, see
from tests.waiting import wait_until
from workers.errors import SanitizedError


@pytest.fixture
def filed(market: Market) -> Market:
    """Orders 1 to 3, each with an NPB, and a seller whose unpaid orders are cancelled three days after the unlock."""
    automate(market, cancel_after_unlock=3)
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3):
        market.done("npb.file", order_id=order_id, member_id="seller")
    return market


def test_settings_are_kept_with_who_set_what_when(market: Market) -> None:
    """R114: what is not named stays, null switches off, and repeating changes nothing."""
    assert see(market, "member", "seller")["automation"] == {"exclude_buyers": []}
    first = automate(market, cancel_after_unlock=3, exclude_buyers=["b-2", "b-1", "b-2"])
    set_at = format_timestamp(ORDERED)
    assert first == {"cancel_after_unlock": {"value": 3, "set_at": set_at}, "exclude_buyers": ["b-1", "b-2"]}
    market.at(ORDERED + DAY)
    assert automate(market, cancel_after_unlock=3) == first
    assert automate(market, staff="kim", cancel_after_unlock=None) == {"exclude_buyers": ["b-1", "b-2"]}
    shown = see(market, "member", "seller")
    assert shown["automation"] == {"exclude_buyers": ["b-1", "b-2"]}
    assert [(c["at"], c["by"]) for c in shown["automation_history"]] == [
        (set_at, "seller"),
        (format_timestamp(ORDERED + DAY), "staff:kim"),
    ]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"cancel_after_unlock": -1}, "cancel_after_unlock"),
        ({"cancel_after_unlock": 31}, "cancel_after_unlock"),
        ({"cancel_after_unlock": 1.0}, "cancel_after_unlock"),
        ({"cancel_after_unlock": "3"}, "cancel_after_unlock"),
        ({"cancel_after_unlock": True}, "cancel_after_unlock"),
        ({"exclude_buyers": ["seller"]}, "exclude_buyers"),
        ({"exclude_buyers": [f"b-{n}" for n in range(MAX_EXCLUDED_BUYERS + 1)]}, "exclude_buyers"),
        ({"exclude_buyers": "buyer"}, "exclude_buyers"),
        ({"everything": True}, "everything"),
    ],
)
def test_settings_out_of_range_change_nothing(market: Market, arguments: dict[str, Any], path: str) -> None:
    """R114."""
    answer = market.do("sellers.set_automation", member_id="seller", **arguments)
    assert answer["outcome"] == "invalid"
    assert {error["path"].partition(".")[0] for error in answer["errors"]} == {path}
    assert see(market, "member", "seller")["automation_history"] == []


def test_settings_of_an_unknown_member_are_refused(market: Market) -> None:
    assert market.code("sellers.set_automation", member_id="ghost", cancel_after_unlock=1) == "MEMBER_UNKNOWN"


def test_null_is_another_command_than_nothing(market: Market) -> None:
    """R114: a request id that was used without the setting is not reused to switch it off."""
    automate(market, cancel_after_unlock=1, request_id="one")
    automate(market, request_id="two")
    answer = market.do("sellers.set_automation", member_id="seller", cancel_after_unlock=None, request_id="two")
    assert answer["outcome"] == "conflict"


def test_a_thousand_buyers_can_be_excluded(market: Market) -> None:
    """R114."""
    excluded = sorted(f"b-{n}" for n in range(MAX_EXCLUDED_BUYERS))
    assert automate(market, exclude_buyers=excluded)["exclude_buyers"] == excluded


def test_an_unpaid_order_is_cancelled_as_its_seller_would(filed: Market) -> None:
    """R116, R119, R120, N20, N21: filed, warned, unlocked and cancelled; stock, strike, fee and emails follow."""
    assert deadlines(filed) == dict.fromkeys((1, 2, 3), DUE)
    filed.simulation.advance(DUE - SECOND)
    assert emails(filed, 1)[-1] == ("cancellation_coming", "buyer")
    assert filed.status(1) == "NPB"
    filed.simulation.advance(DUE)
    assert emails(filed, 1) == [
        ("npb_filed", "buyer"),
        ("npb_unlocked", "seller"),
        ("cancellation_coming", "buyer"),
        ("order_cancelled", "seller"),
        ("order_cancelled", "buyer"),
        ("credit_posted", "seller"),
    ]
    shown = see(filed, "order", 1)
    assert (shown["status"], shown["basis"], shown["cancelled_by"]) == ("CANCELLED", "NPB", "automation")
    assert shown["cancelled_at"] == format_timestamp(DUE)
    assert shown["lines"][0]["returned"] == 10
    assert shown["fee"]["net"] == "0.00"
    assert sorted(see(filed, "member", "buyer")["strikes"]) == [1, 2, 3]
    event = shown["timeline"][-1]
    assert (event["event"], event["actor"], event["role"]) == ("orders.cancelled", "automation", "seller")
    assert f"cancel_after_unlock = 3 days, set on {format_timestamp(ORDERED)}" in event["note"]
    assert event["request_id"] is None
    texts = {n["recipient"]: n["text"] for n in shown["notices"] if n["event"] == "order_cancelled"}
    assert "Following your settings, order 1 was cancelled automatically" in texts["seller"]
    assert "is cancelled automatically 3 days after it can be cancelled" in " ".join(texts["seller"].split())
    assert "Following the seller's settings, order 1 was cancelled automatically" in texts["buyer"]
    assert filed.count(RequestRow, task="orders.cancel") == 0


def test_what_is_coming_is_announced(filed: Market) -> None:
    """R119: by options, explain and the view, with the time that the sweep uses."""
    filed.at(FILED + DAY)
    explained = see(filed, "explain", "order", 1)
    (announced,) = explained["automation"]
    assert announced | {"sentence": ""} == {
        "act": "orders.cancel",
        "at": format_timestamp(DUE),
        "setting": "cancel_after_unlock",
        "value": 3,
        "set_at": format_timestamp(ORDERED),
        "sentence": "",
    }
    assert announced["sentence"] in explained["verdict"]
    options = filed.do("orders.options", order_id=1, member_id="buyer")
    assert options["effects"]["automation"] == [announced]
    assert announced["sentence"] in options["message"]
    (row,) = filed.rows("SELECT * FROM unwind.v_automation_forecast WHERE order_id = 1")
    assert tuple(row) == (1, "orders.cancel", DUE, "seller", "buyer")
    before = see(filed, "explain", "order", 1, "--at", format_timestamp(FILED - SECOND))
    assert before["automation"] == []
    automate(filed, cancel_after_unlock=None)
    assert see(filed, "explain", "order", 1)["automation"] == []
    then = see(filed, "explain", "order", 1, "--at", format_timestamp(FILED))
    assert [a["at"] for a in then["automation"]] == [format_timestamp(DUE)]


def test_deadlines_move_in_the_commit_of_what_moves_them(filed: Market) -> None:
    """R114, R116, R118: settings, payments, answers, exclusions and closed accounts."""
    same = dict.fromkeys((1, 2, 3), DUE)
    automate(filed, cancel_after_unlock=5)
    assert deadlines(filed) == dict.fromkeys((1, 2, 3), UNLOCKED + 5 * DAY)
    automate(filed, cancel_after_unlock=None)
    assert deadlines(filed) == dict.fromkeys((1, 2, 3))
    automate(filed, cancel_after_unlock=3)
    filed.done("orders.record_payment", order_id=1, payment_status="Sent")
    assert deadlines(filed) == same | {1: None}
    filed.done("orders.record_payment", order_id=1, payment_status="None")
    filed.done("npb.respond", order_id=2, member_id="buyer", comment="soon")
    filed.done("npb.accept_penalty", order_id=3, member_id="buyer")
    assert deadlines(filed) == {1: DUE, 2: DUE + WEEK, 3: FILED + 3 * DAY}
    automate(filed, exclude_buyers=["buyer"])
    assert deadlines(filed) == dict.fromkeys((1, 2, 3))
    automate(filed, exclude_buyers=[])
    filed.done("members.terminate", member_id="seller", staff="kim", comment="closed")
    assert deadlines(filed) == dict.fromkeys((1, 2, 3))
    filed.done("members.reinstate", member_id="seller", staff="kim", comment="reopened")
    assert deadlines(filed) == {1: DUE, 2: DUE + WEEK, 3: FILED + 3 * DAY}
    filed.done("npb.remove", order_id=2, member_id="seller")
    assert deadlines(filed)[2] is None


def test_a_hold_is_part_of_the_order_and_ends_by_itself(filed: Market) -> None:
    """R118, R121: shown, in the timeline, and no sweep is needed to end it."""
    until = DUE + 2 * DAY
    filed.done("orders.hold_automation", order_id=1, staff="kim", comment="asked by phone")
    filed.done(
        "orders.hold_automation",
        order_id=2,
        member_id="seller",
        until=format_timestamp(until),
        comment="pays on Friday",
    )
    assert deadlines(filed) == {1: None, 2: until, 3: DUE}
    filed.simulation.advance(until - SECOND)
    assert [filed.status(order_id) for order_id in (1, 2, 3)] == ["NPB", "NPB", "CANCELLED"]
    shown = see(filed, "order", 2)
    assert (shown["held_at"], shown["held_until"]) == (format_timestamp(FILED), format_timestamp(until))
    assert see(filed, "order", 2, "--at", format_timestamp(FILED - SECOND))["held_at"] is None
    filed.simulation.advance(until)
    filed.done("orders.release_automation", order_id=1, member_id="seller", comment="no word since")
    assert deadlines(filed)[1] == DUE
    filed.simulation.advance(until + SECOND)
    assert [filed.status(order_id) for order_id in (1, 2, 3)] == ["CANCELLED"] * 3
    events = [entry["event"] for entry in see(filed, "order", 1)["timeline"]]
    assert events[2:4] == ["orders.automation_held", "npb.unlocked"]


def test_a_payment_in_time_keeps_the_order(filed: Market) -> None:
    """R121: at the last second; the others are cancelled."""
    filed.simulation.advance(DUE - SECOND)
    filed.done("orders.record_payment", order_id=2, payment_status="Received")
    filed.simulation.advance(DUE + DAY)
    assert [filed.status(order_id) for order_id in (1, 2, 3)] == ["CANCELLED", "NPB", "CANCELLED"]


def test_settings_of_today_hold_for_open_cases(market: Market) -> None:
    """R114: an alert that unlocked long ago is due at once."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.simulation.advance(UNLOCKED + 20 * DAY)
    automate(market, cancel_after_unlock=3)
    market.simulation.advance(market.simulation.clock.instant)
    assert market.status(1003) == "CANCELLED"
    assert ("cancellation_coming", "buyer") not in emails(market)
    assert see(market, "order", 1003)["cancelled_at"] == format_timestamp(UNLOCKED + 20 * DAY)


def test_stopped_beat_and_repeated_ticks_change_nothing(filed: Market) -> None:
    """R124: three days late, twice over; one cancellation, one email each."""
    filed.at(DUE + 3 * DAY)
    assert filed.done("automation.cancel") == {"warned": 3, "cancelled": 3}
    assert filed.done("automation.cancel") == {"warned": 0, "cancelled": 0}
    assert sorted(emails(filed, 1)) == [
        ("credit_posted", "seller"),
        ("npb_filed", "buyer"),
        ("order_cancelled", "buyer"),
        ("order_cancelled", "seller"),
    ]
    assert see(filed, "order", 1)["cancelled_at"] == format_timestamp(DUE + 3 * DAY)


def test_each_time_of_cancellation_is_warned_of_once(filed: Market) -> None:
    """N20, R120: a day before; again for another time."""
    filed.at(DUE - DAY - SECOND)
    assert sweep("automation.cancel", WarningSweep()) == 0
    filed.at(DUE - DAY)
    assert sweep("automation.cancel", WarningSweep(), limit=2) == 3
    assert sweep("automation.cancel", WarningSweep()) == 0
    automate(filed, cancel_after_unlock=6)
    filed.simulation.advance(UNLOCKED + 6 * DAY - SECOND)
    assert emails(filed, 1).count(("cancellation_coming", "buyer")) == 2
    filed.simulation.advance(UNLOCKED + 6 * DAY)
    assert filed.status(1) == "CANCELLED"


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_many_due_orders_are_cancelled_in_batches(filed: Market, limit: int) -> None:
    """R124."""
    filed.at(DUE)
    assert sweep("automation.cancel", CancelSweep(), limit=limit) == 3
    assert sweep("automation.cancel", CancelSweep(), limit=limit) == 0
    filed.simulation.process_outbox()


def test_nothing_is_cancelled_while_buyers_cannot_be_warned(filed: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """R120: the sweep ends with the error; the next one warns, then cancels."""
    filed.at(DUE)
    with monkeypatch.context() as patch:
        patch.setattr(WarningSweep, "handle", lambda *_: 1 / 0)
        with pytest.raises(SanitizedError, match="ZeroDivisionError"):
            cancel_due_orders()
    assert {filed.status(order_id) for order_id in (1, 2, 3)} == {"NPB"}
    assert filed.done("automation.cancel") == {"warned": 3, "cancelled": 3}


def test_an_order_that_cannot_be_cancelled_stops_no_other(filed: Market, database_url: str) -> None:
    """R124: it is passed over, logged and reported."""
    filed.at(DUE)
    with psycopg.connect(libpq_url(database_url)) as owner:
        owner.execute("ALTER TABLE unwind.orders ADD CHECK (order_id <> 2 OR status <> 'CANCELLED')")
    filed.done("npb.scan_open_alerts")
    assert filed.done("automation.cancel") == {"warned": 3, "cancelled": 2}
    assert [filed.status(order_id) for order_id in (1, 2, 3)] == ["CANCELLED", "NPB", "CANCELLED"]
    with filed.simulation.database.transaction() as conn:
        violations = invariants.query_invariants(conn, DUE + timedelta(minutes=2))
    assert violations == {"No automatic act is overdue by more than a minute": ["2"]}


def test_a_lot_that_leaves_its_stockroom_is_planned(filed: Market) -> None:
    """R116: the one statement cannot return these items; the plan can."""
    filed.done(
        "terms.apply", terms={"RELEASE_AUTO_STOCKROOM": True}, staff="kim", **{"from": format_timestamp(FILED + DAY)}
    )
    filed.at(FILED + 2 * DAY)
    filed.lot(900, quantity=10, is_retain=True, item={"no": "3002", "type": "PART"})
    filed.order(4, [(900, 10)], buyer_id="stranger")
    filed.at(FILED + 10 * DAY).done("npb.file", order_id=4, member_id="seller")
    filed.simulation.advance(FILED + 30 * DAY)
    assert filed.status(4) == "CANCELLED"
    (lot,) = filed.lots(lot_id=900)
    assert (lot.quantity, lot.is_stock_room) == (10, False)


@pytest.mark.parametrize("task", ["automation.file_alerts", "automation.cancel"])
def test_a_sweep_acts_after_the_commands_for_which_it_waited(market: Market, database_url: str, task: str) -> None:
    """R124: in the record, no act comes before a decision that was made without it."""
    automate(market, file_npb_after=7, cancel_after_unlock=3)
    market.order(1)
    market.at(FILED + 3 * DAY)
    if task == "automation.cancel":
        market.done("automation.file_alerts")
        market.at(FILED + 3 * DAY + WEEK).done("npb.scan_open_alerts")
        market.at(FILED + 6 * DAY + WEEK)
    due = market.simulation.clock.instant
    with psycopg.connect(libpq_url(database_url)) as command, ThreadPoolExecutor(1) as pool:
        command.execute("SELECT FROM unwind.orders FOR UPDATE")
        done = pool.submit(market.done, task)
        with psycopg.connect(libpq_url(database_url), autocommit=True) as watcher:
            wait_until(lambda: watcher.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone(), 30)
        market.at(due + 2 * SECOND)
        command.commit()
        assert 1 in done.result(30).values()
    assert market.events(actor="automation")[-1].at == due + 2 * SECOND


def test_more_time_moves_the_automatic_cancellation_and_its_warning(filed: Market) -> None:
    """R122, R116, N20, N22: in the same commit."""
    until = UNLOCKED + 2 * DAY
    extend = {"order_id": 1, "until": format_timestamp(until), "comment": "as agreed"}
    assert filed.done("npb.extend", member_id="seller", **extend) == {"unlocks_at": format_timestamp(until)}
    assert deadlines(filed) == {1: until + 3 * DAY, 2: DUE, 3: DUE}
    filed.simulation.advance(until + 3 * DAY - SECOND)
    assert [filed.status(order_id) for order_id in (1, 2, 3)] == ["NPB", "CANCELLED", "CANCELLED"]
    assert emails(filed, 1)[1] == ("npb_extended", "buyer")
    assert see(filed, "order", 1)["alert"]["unlocked_at"] == format_timestamp(until)
    assert filed.code("npb.extend", staff="kim", **extend | {"until": format_timestamp(until + DAY)}) == "WRONG_STATUS"
    filed.simulation.advance(until + 3 * DAY)
    assert filed.status(1) == "CANCELLED"
