"""Cancellation of orders and what follows from it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.members import MemberRow
from models.notices import NoticeRow
from models.removals import RemovalRow
from models.stored_answers import RequestRow
from models.sweeps import SweepRow
from tests.plugins.market import FILED, ORDERED, WEEK, Market

SECOND = timedelta(seconds=1)


def tables(market: Market, *, requests: bool = False) -> dict[str, list[str]]:
    return market.content_except(SweepRow, *(() if requests else (RequestRow,)))


def may_buy(market: Market, member_id: str = "buyer") -> bool:
    (member,) = market.stored(MemberRow, member_id=member_id)
    return member.buying_revoked_at is None


def cancelled_through_npb(market: Market, order_id: int = 1003) -> dict[str, Any]:
    market.at(FILED).done("npb.file", order_id=order_id, member_id="seller")
    return market.at(FILED + WEEK).done("orders.cancel", order_id=order_id, member_id="seller")


def test_cancelling_through_an_alert_reverts_everything(market: Market) -> None:
    """T13, R56, R58, R61, R63, R84: status, stock, alert, strike, and the fee as a credit of the later month."""
    lot = market.lot(quantity=100, unit_price="75.0000")
    market.order(1003, [(lot, 10)])
    effects = cancelled_through_npb(market)
    assert effects == {
        "basis": "NPB",
        "lines": [{"line_no": 1, "returned": 10, "lot_id": lot, "note": None}],
        "removals_cancelled": 0,
        "fee": {"kind": "credit", "amount": "-20.00", "bill": "2026-04"},
    }
    row = market.stored_order()
    assert (row.status, row.basis, row.cancelled_by, row.cancelled_at) == ("CANCELLED", "NPB", "seller", FILED + WEEK)
    assert market.units() == 100
    assert [alert.state for alert in market.alerts()] == ["completed"]
    assert [(strike.member_id, strike.role) for strike in market.strikes()] == [("buyer", "buyer")]
    (credit,) = market.ledger_lines(kind="credit")
    assert (credit.amount, str(credit.billing_month)) == (Decimal("-20.00"), "2026-04-01")
    assert sorted(notice.recipient for notice in market.notices(event="order_cancelled")) == ["buyer", "seller"]


def test_the_same_month_resets_the_fee(market: Market) -> None:
    """R83."""
    market.order(1003, [(market.lot(unit_price="12.0000"), 10)])
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    effects = market.done("orders.cancel", order_id=1003, member_id="seller")
    assert effects["fee"] == {"kind": "reset", "amount": "-3.60", "bill": "2026-03"}
    assert sum(line.amount for line in market.ledger_lines()) == 0


def test_pending_removal_requests_are_cancelled_with_the_order(market: Market) -> None:
    """R59: pending ones become cancelled, others keep their state, both parties are notified once."""
    market.order(1003)
    ask = {"order_id": 1003, "lines": [{"line_no": 1, "quantity": 1}]}
    first = market.done("removals.request", member_id="buyer", **ask)["removal_id"]
    second = market.done("removals.request", member_id="seller", **ask)["removal_id"]
    market.done("removals.deny", removal_id=first, member_id="seller")
    market.done("ocr.file", order_id=1003, member_id="buyer", reason="B_MUTUAL", comment="please")
    assert market.done("orders.cancel", order_id=1003, member_id="seller")["removals_cancelled"] == 1
    states = {removal.removal_id: removal.state for removal in market.stored(RemovalRow)}
    assert states == {first: "denied", second: "cancelled"}
    assert sorted(notice.recipient for notice in market.notices(event="removal_cancelled")) == ["buyer", "seller"]


def test_an_approval_after_the_cancellation_is_refused_before_the_consumer_ran(market: Market) -> None:
    """R60."""
    market.order(1003)
    ask = {"order_id": 1003, "lines": [{"line_no": 1, "quantity": 1}]}
    removal = market.done("removals.request", member_id="buyer", **ask)["removal_id"]
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    assert market.simulation.do("orders.cancel", order_id=1003, member_id="seller")["outcome"] == "done"
    assert (
        market.simulation.do("removals.approve", removal_id=removal, member_id="seller")["code"] == "ALREADY_CANCELLED"
    )
    market.simulation.process_outbox()
    assert [removal.state for removal in market.stored(RemovalRow)] == ["cancelled"]


@pytest.mark.parametrize("kind", ["nrs", "nss"])
def test_a_buyers_cancel_returns_and_credits_nothing(market: Market, kind: str) -> None:
    """T17, R47, R64, R85, R96: and strikes the seller."""
    lot = market.lot()
    market.order(1003, [(lot, 10)])
    extra = {}
    if kind == "nss":
        market.done("orders.record_payment", order_id=1003, payment_status="Completed")
        extra = {"grounds": "NOT_SHIPPED"}
    market.at(FILED).done(f"{kind}.file", order_id=1003, member_id="buyer", comment="nothing", **extra)
    cancel = {"order_id": 1003, "member_id": "buyer"}
    assert market.at(FILED + 2 * WEEK - SECOND).code("orders.cancel", **cancel) == "TOO_EARLY"
    effects = market.at(FILED + 2 * WEEK).done("orders.cancel", **cancel)
    assert effects["basis"] == kind.upper()
    assert effects["lines"] == [{"line_no": 1, "returned": 0, "lot_id": None, "note": None}]
    assert effects["fee"] == {"kind": "none", "amount": "0.00", "bill": None}
    assert market.units() == 90
    assert [line.kind for line in market.ledger_lines()] == ["charge"]
    assert [strike.member_id for strike in market.strikes()] == ["seller"]


def test_a_terminated_sellers_stock_is_never_touched(market: Market) -> None:
    """R54, R65: nothing returns, and the fee stays."""
    lot = market.lot()
    market.order(1003, [(lot, 10)])
    market.done("members.terminate", member_id="seller", staff="kim", comment="fraud")
    effects = market.done("orders.cancel", order_id=1003, member_id="buyer")
    assert (effects["basis"], effects["lines"][0]["returned"], effects["fee"]["kind"]) == (
        "SELLER_TERMINATED",
        0,
        "reset",
    )
    assert market.units() == 90


def test_the_seller_cancels_at_once_when_the_buyer_is_terminated(market: Market) -> None:
    """R53, T18."""
    market.order(1003)
    market.done("members.terminate", member_id="buyer", staff="kim", comment="fraud")
    effects = market.done("orders.cancel", order_id=1003, member_id="seller")
    assert (effects["basis"], effects["lines"][0]["returned"]) == ("BUYER_TERMINATED", 10)


@pytest.mark.guarantee("P5")
def test_a_second_cancel_has_no_second_effect(market: Market) -> None:
    """R57: refused under a new request id, the first answer under the same one."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    cancel = {"order_id": 1003, "member_id": "seller"}
    first = market.at(FILED + WEEK).do("orders.cancel", request_id="r-1", **cancel)
    before = tables(market)
    assert market.do("orders.cancel", request_id="r-1", **cancel) == first | {"replayed": True}
    assert market.code("orders.cancel", request_id="r-2", **cancel) == "ALREADY_CANCELLED"
    reused = market.do("orders.cancel", request_id="r-1", order_id=1003, member_id="buyer")
    assert (reused["outcome"], reused["code"]) == ("conflict", "REQUEST_ID_REUSED")
    assert tables(market) == before


def test_a_dry_run_returns_the_plan_and_writes_nothing(market: Market) -> None:
    sold_out = market.lot(501, quantity=10)
    market.order(1003, [(sold_out, 10), (market.lot(502), 3)])
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    cancel = {"order_id": 1003, "member_id": "seller"}
    before = tables(market, requests=True)
    foretold = market.at(FILED + WEEK).done("orders.cancel", dry_run=True, request_id="r-1", **cancel)
    assert tables(market, requests=True) == before
    assert market.done("orders.cancel", request_id="r-1", **cancel) == foretold


def test_three_strikes_suspend_the_buyers_privilege(market: Market) -> None:
    """R95, R97, R99, N15: a removed alert does not count; staff takes one back, and the privilege with it."""
    lot = market.lot()
    for order_id in (1, 2, 3, 4, 5):
        market.order(order_id, [(lot, 1)])
    market.at(FILED)
    for order_id in (1, 2, 3, 4):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.done("npb.remove", order_id=4, member_id="seller")
    market.at(FILED + WEEK)
    for order_id in (1, 2):
        market.done("orders.cancel", order_id=order_id, member_id="seller")
    assert may_buy(market)
    market.done("orders.cancel", order_id=3, member_id="seller")
    assert not may_buy(market)
    assert [notice.recipient for notice in market.notices(event="privilege_revoked")] == ["buyer"]
    purchase = {"buyer_id": "buyer", "seller_id": "seller", "lines": [{"lot_id": lot, "quantity": 1}]}
    assert market.code("orders.submit", order_id=6, **purchase) == "PRIVILEGE_REVOKED"
    assert market.code("npb.remove", order_id=2, member_id="seller") == "ALREADY_CANCELLED"
    assert market.done("npb.remove", order_id=2, staff="kim", comment="was paid")["strike_withdrawn"]
    assert may_buy(market)
    assert market.status(2) == "CANCELLED"
    assert market.code("orders.submit", order_id=6, **purchase) is None


def test_strikes_of_one_batch_count_together(market: Market) -> None:
    """R95 across a batch: three cancellations in one message revoke exactly once."""
    lot = market.lot()
    for order_id in (1, 2, 3):
        market.order(order_id, [(lot, 1)])
        market.at(FILED).done("npb.file", order_id=order_id, member_id="seller")
        market.at(ORDERED)
        market.simulation.clock.instant = FILED if order_id == 3 else ORDERED
        if order_id < 3:
            market.do("npb.remove", order_id=order_id, member_id="seller")
    for order_id in (1, 2):
        market.at(FILED).done("npb.file", order_id=order_id, member_id="seller")
    items = [{"order_id": n, "member_id": "seller"} for n in (1, 2, 3)]
    effects = market.at(FILED + WEEK).done("orders.cancel_many", orders=items)
    assert effects["counts"] == {"done": 3}
    assert not may_buy(market)
    assert market.count(NoticeRow, event="privilege_revoked") == 1


def test_the_longest_request_id_works_for_many_orders(market: Market) -> None:
    orders = [{"order_id": market.order(number), "member_id": "seller"} for number in (1, 2)]
    for order in orders:
        market.done("ocr.file", **order, reason="S_MUTUAL", comment="agreed")
    first = market.done("orders.cancel_many", request_id="r" * 128, orders=orders)
    assert [a["outcome"] for a in first["answers"]] == ["done", "done"]
    assert len({a["request_id"] for a in first["answers"]}) == 2
    again = market.do("orders.cancel_many", request_id="r" * 128, orders=orders)
    assert again["replayed"]
    assert [answer | {"replayed": False} for answer in again["effects"]["answers"]] == first["answers"]


def test_invalid_items_are_answered_and_the_others_cancelled(market: Market) -> None:
    """R111: and the repeated command marks each inner answer."""
    lot = market.lot(quantity=1000)
    for order_id in range(1, 121):
        market.order(order_id, [(lot, 1)])
    market.done("members.terminate", member_id="buyer", staff="kim", comment="fraud")
    items: list[Any] = [{"order_id": n, "member_id": "seller"} for n in range(1, 121)]
    items[7] = {"order_id": 7777, "member_id": "seller"}
    items[8] = {"order_id": "nine", "member_id": "seller"}
    items[9] = "ten"
    items[10] = {"order_id": 1, "member_id": "seller"}
    items[11] = {"order_id": 12, "member_id": "stranger"}
    answer = market.do("orders.cancel_many", request_id="batch", orders=items)
    answers = answer["effects"]["answers"]
    outcomes = {n: (answers[n]["outcome"], answers[n]["code"]) for n in range(7, 12)}
    assert outcomes == {
        7: ("refused", "ORDER_UNKNOWN"),
        8: ("invalid", None),
        9: ("invalid", None),
        10: ("refused", "ALREADY_CANCELLED"),
        11: ("refused", "NOT_A_PARTY"),
    }
    assert answer["effects"]["counts"] == {"done": 115, "invalid": 2, "refused": 3}
    assert answers[0]["request_id"] == "batch:0"
    assert market.units() == 1000 - 5
    replayed = answer["effects"] | {"answers": [item | {"replayed": True} for item in answers]}
    again = market.do("orders.cancel_many", request_id="batch", orders=items)
    assert again == answer | {"replayed": True, "effects": replayed}


def test_an_item_cannot_use_the_request_id_of_the_command(market: Market) -> None:
    for order_id in (1, 2):
        market.order(order_id)
        market.done("ocr.file", order_id=order_id, member_id="seller", reason="S_MUTUAL", comment="agreed")
    items = [{"order_id": 1, "member_id": "seller", "request_id": "whole"}, {"order_id": 2, "member_id": "seller"}]
    first = market.do("orders.cancel_many", orders=items, request_id="whole")
    assert [answer["code"] or answer["outcome"] for answer in first["effects"]["answers"]] == [
        "REQUEST_ID_REUSED",
        "done",
    ]
    again = market.do("orders.cancel_many", orders=items, request_id="whole")
    assert again["replayed"]
    assert all(answer["replayed"] for answer in again["effects"]["answers"])


@pytest.mark.parametrize("orders", [[], [{"order_id": 1, "member_id": "seller"}] * 1001, "all", None])
def test_cancel_many_takes_one_to_a_thousand_orders(market: Market, orders: Any) -> None:
    assert market.do("orders.cancel_many", orders=orders)["outcome"] == "invalid"


@pytest.mark.parametrize(
    ("arguments", "outcome", "code"),
    [
        ({"order_id": 9}, "refused", "ORDER_UNKNOWN"),
        ({"member_id": "nobody"}, "refused", "MEMBER_UNKNOWN"),
        ({"member_id": "stranger"}, "refused", "NOT_A_PARTY"),
        ({"member_id": "buyer"}, "refused", "WRONG_ROLE"),
        ({}, "refused", "TOO_EARLY"),
        ({"occurred_at": "2026-04-05T10:00:01Z"}, "invalid", None),
        ({"occurred_at": "2026-04-04T09:59:59Z"}, "invalid", None),
        ({"occurred_at": "2026-04-05T10:00:00"}, "invalid", None),
        ({"occurred_at": 5}, "invalid", None),
        ({"comment": "x" * 2001}, "invalid", None),
        ({"comment": "x" * 10_000_000}, "invalid", None),
        ({"comment": "nul\x00"}, "invalid", None),
        ({"comment": "\ud800"}, "invalid", None),
        ({"request_id": "with space"}, "invalid", None),
        ({"request_id": "x" * 129}, "invalid", None),
        ({"request_id": ""}, "invalid", None),
        ({"staff": "kim"}, "invalid", None),
        ({"order_id": None}, "invalid", None),
        ({"order_id": True}, "invalid", None),
        ({"dry_run": 1}, "invalid", None),
        ({"extra": {}}, "invalid", None),
    ],
)
def test_bad_input_is_answered_and_changes_nothing(
    market: Market, arguments: dict[str, Any], outcome: str, code: str | None
) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    before = tables(market.at(FILED + timedelta(days=1)))
    answer = market.do("orders.cancel", **({"order_id": 1003, "member_id": "seller"} | arguments))
    assert (answer["outcome"], answer["code"]) == (outcome, code)
    assert all("nobody" not in e["message"] for e in answer["errors"])
    if code == "TOO_EARLY":
        assert answer["possible_from"] == "2026-04-11T10:00:00Z"
    assert tables(market) == before


def test_a_command_takes_effect_at_its_occurred_at(market: Market) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK + timedelta(hours=5))
    market.done("orders.cancel", order_id=1003, member_id="seller", occurred_at="2026-04-11T11:00:00+01:00")
    assert market.stored_order().cancelled_at == FILED + WEEK


def test_the_dry_run_on_a_paid_order_speaks_of_payment_and_strike(market: Market) -> None:
    """N18: only where a buyer would get a strike for an order that seems to be paid."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    cancel = {"order_id": 1003, "member_id": "seller", "dry_run": True}
    market.at(FILED + WEEK)
    for payment, warns in (("Sent", False), ("Received", True)):
        market.done("orders.record_payment", order_id=1003, payment_status=payment)
        answer = market.do("orders.cancel", **cancel)
        assert answer["outcome"] == "done"
        assert ("strike" in answer["message"], payment in answer["message"]) == (warns, warns), answer["message"]
        options = market.done("orders.options", order_id=1003, member_id="seller")["options"]
        (option,) = [option for option in options if option["action"] == "orders.cancel"]
        assert ("strike" in option["why"]) == warns
    market.done("npb.remove", order_id=1003, member_id="seller")
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed")
    assert market.do("orders.cancel", **cancel)["message"] == "Done."
