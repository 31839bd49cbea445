"""Drafts of cancellations: steps 1 to 3 change only the draft, step 4 checks everything again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from models.drafts import DraftRow
from models.events import EventRow
from models.inventory import LotRow
from models.orders import OrderLineRow, OrderRow
from models.stock_moves import StockMoveRow
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market

UNLOCKED = FILED + WEEK
LOT_1: dict[str, Any] = {"quantity": 10, "remarks": "Box 1", "my_cost": "0.0500"}


@pytest.fixture
def waiting(market: Market) -> Market:
    market.lot(1, **LOT_1)
    market.lot(2, quantity=6, color_id=7, remarks="Box 2")
    market.order(1003, [(1, 4), (2, 6)])
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_BUYER_CHANGED_MIND", comment="Miscounted.")
    return market


def opened(market: Market, *, order_id: int = 1003, consolidate: bool = True, **values: str) -> str:
    effects = market.done("drafts.open", order_id=order_id, member_id="seller", consolidate=consolidate, values=values)
    draft_id: str = effects["draft_id"]
    return draft_id


def edit(market: Market, draft_id: str, *lines: dict[str, Any]) -> dict[str, Any]:
    return market.do("drafts.edit", draft_id=draft_id, member_id="seller", lines=list(lines))


def verified(market: Market, draft_id: str) -> dict[str, Any]:
    return market.done("drafts.verify", draft_id=draft_id, member_id="seller")


def cancel(market: Market, draft_id: str, **fields: Any) -> dict[str, Any]:
    return market.do("orders.cancel", order_id=1003, member_id="seller", draft_id=draft_id, **fields)


def stock_and_answers(market: Market) -> dict[str, list[str]]:
    return market.content(OrderRow, OrderLineRow, LotRow, StockMoveRow, EventRow)


def test_steps_one_to_three_change_neither_order_nor_stock(waiting: Market) -> None:
    """R72."""
    before = stock_and_answers(waiting)
    draft_id = opened(waiting, price="new")
    edit(waiting, draft_id, {"line_no": 1, "quantity": 2})
    verified(waiting, draft_id)
    assert stock_and_answers(waiting) == before


def test_verification_shows_the_target_lot_and_its_values(waiting: Market) -> None:
    draft_id = opened(waiting, remarks="concatenate")
    edit(waiting, draft_id, {"line_no": 1, "quantity": 3, "fields": {"remarks": "Came back"}})
    verified_draft = verified(waiting, draft_id)
    assert (verified_draft["state"], verified_draft["problems"]) == ("verified", [])
    first, second = verified_draft["lines"]
    assert (first["returned"], first["lot_id"], first["new"]) == (3, 1, False)
    assert (first["values"]["quantity"], first["values"]["remarks"]) == (9, "Box 1 | Came back")
    assert (second["returned"], second["lot_id"], second["new"]) == (6, 9_000_000_000_000, True)
    assert second["values"]["remarks"] == "Box 2"


def test_step_four_executes_what_step_three_showed(waiting: Market) -> None:
    """R70, R71, R73."""
    draft_id = opened(waiting, remarks="concatenate", price="new", cost="average")
    fields = {"remarks": "Came back", "unit_price": "0.5000", "my_cost": "0.1000"}
    edit(waiting, draft_id, {"line_no": 1, "quantity": 2, "fields": fields}, {"line_no": 2, "delete": True})
    verified(waiting, draft_id)
    answer = cancel(waiting, draft_id)
    assert answer["effects"]["lines"] == [
        {"line_no": 1, "returned": 2, "lot_id": 1, "note": None},
        {"line_no": 2, "returned": 0, "lot_id": None, "note": "DELETED_IN_DRAFT"},
    ]
    (lot,) = waiting.lots()
    assert (lot.quantity, lot.remarks, str(lot.unit_price)) == (8, "Box 1 | Came back", "0.5000")
    assert str(lot.my_cost) == "0.0625"  # (6 x 0.05 + 2 x 0.10) / 8
    assert [draft.state for draft in waiting.stored(DraftRow)] == ["used"]


def test_a_dry_run_with_a_draft_answers_what_the_real_run_does(waiting: Market) -> None:
    draft_id = opened(waiting, consolidate=False)
    verified(waiting, draft_id)
    before = stock_and_answers(waiting)
    foreseen = cancel(waiting, draft_id, dry_run=True)["effects"]
    assert stock_and_answers(waiting) == before
    assert cancel(waiting, draft_id)["effects"] == foreseen
    assert waiting.count(LotRow) == 3


def test_all_lines_deleted_cancels_with_an_empty_return(waiting: Market) -> None:
    draft_id = opened(waiting)
    edit(waiting, draft_id, {"line_no": 1, "delete": True}, {"line_no": 2, "delete": True})
    verified(waiting, draft_id)
    assert cancel(waiting, draft_id)["outcome"] == "done"
    assert [lot.quantity for lot in waiting.lots()] == [6]


def test_a_draft_that_was_not_verified_is_incomplete(waiting: Market) -> None:
    draft_id = opened(waiting)
    assert cancel(waiting, draft_id)["code"] == "DRAFT_INCOMPLETE"
    verified(waiting, draft_id)
    edit(waiting, draft_id, {"line_no": 1, "quantity": 1})
    assert cancel(waiting, draft_id)["code"] == "DRAFT_INCOMPLETE"
    verified(waiting, draft_id)
    assert cancel(waiting, draft_id)["outcome"] == "done"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"unit_price": "0.0000"}, "unit_price"),
        ({"unit_price": "-1.0000"}, "unit_price"),
        ({"sale_rate": 100}, "sale_rate"),
        ({"bulk": 0}, "bulk"),
        ({"tier_quantity1": 10}, "tier_quantity1"),
        ({"tier_quantity2": 10, "tier_price2": "0.5000"}, "tier_quantity2"),
        ({"tier_quantity1": 10, "tier_price1": "1.0000"}, "tier_price1"),
        (
            {"tier_quantity1": 10, "tier_price1": "0.5000", "tier_quantity2": 5, "tier_price2": "0.4000"},
            "tier_quantity2",
        ),
        ({"is_stock_room": True, "stock_room_id": "B", "reserved_for": "buyer"}, "reserved_for"),
        ({"stock_room_id": "B"}, "stock_room_id"),
        ({"my_cost": "-0.0100"}, "my_cost"),
        ({"remarks": "x" * 2001}, "remarks"),
    ],
)
def test_verification_names_the_problems_and_the_draft_stays_unusable(
    waiting: Market, fields: dict[str, Any], field: str
) -> None:
    draft_id = opened(waiting, consolidate=False)
    edit(waiting, draft_id, {"line_no": 1, "fields": fields})
    verified_draft = verified(waiting, draft_id)
    assert (verified_draft["state"], [(p["line_no"], p["field"]) for p in verified_draft["problems"]]) == (
        "open",
        [(1, field)],
    )
    assert cancel(waiting, draft_id)["code"] == "DRAFT_INCOMPLETE"


@pytest.mark.parametrize(
    "line",
    [
        {"line_no": 3},
        {"line_no": 1, "quantity": 5},
        {"line_no": 1, "quantity": -1},
        {"line_no": 1, "delete": True, "quantity": 1},
        {"line_no": 1, "fields": {"color_id": 3}},
        {"line_no": 1, "fields": {"unit_price": 1.0}},
        {"line_no": 1, "fields": {"unit_price": None}},
        {"line_no": 1, "units": 1},
    ],
)
def test_an_edit_cannot_return_more_than_was_ordered(waiting: Market, line: dict[str, Any]) -> None:
    draft_id = opened(waiting)
    assert edit(waiting, draft_id, line)["outcome"] == "invalid"


def test_a_line_named_twice_is_invalid(waiting: Market) -> None:
    draft_id = opened(waiting)
    assert edit(waiting, draft_id, {"line_no": 1}, {"line_no": 1})["outcome"] == "invalid"


def test_edits_accumulate_and_a_deleted_line_can_be_restored(waiting: Market) -> None:
    draft_id = opened(waiting, consolidate=False)
    edit(waiting, draft_id, {"line_no": 1, "fields": {"remarks": "A", "bulk": 2}})
    edit(waiting, draft_id, {"line_no": 1, "delete": True})
    edit(waiting, draft_id, {"line_no": 1, "delete": False, "fields": {"remarks": ""}})
    values = verified(waiting, draft_id)["lines"][0]["values"]
    assert (values["remarks"], values["bulk"]) == ("", 2)


def test_values_that_differ_are_different_requests(waiting: Market) -> None:
    draft_id = opened(waiting)
    arguments = {"draft_id": draft_id, "member_id": "seller", "request_id": "r-1"}
    waiting.done("drafts.edit", **arguments, lines=[{"line_no": 1, "fields": {"remarks": ""}}])
    again = waiting.do("drafts.edit", **arguments, lines=[{"line_no": 1, "fields": {"description": ""}}])
    assert again["outcome"] == "conflict"


def test_a_draft_is_stale_when_the_order_changed(waiting: Market) -> None:
    draft_id = opened(waiting)
    verified(waiting, draft_id)
    waiting.done("orders.record_payment", order_id=1003, payment_status="Sent")
    assert cancel(waiting, draft_id)["code"] == "DRAFT_STALE"
    assert edit(waiting, draft_id, {"line_no": 1, "quantity": 1})["code"] == "DRAFT_STALE"
    again = opened(waiting)
    verified(waiting, again)
    assert cancel(waiting, again)["outcome"] == "done"


def test_an_unlock_by_the_sweep_does_not_make_a_draft_stale(market: Market) -> None:
    """R40: the order can be cancelled from its deadline on; the later mark changes nothing."""
    market.lot(1, quantity=10)
    market.order(1003, [(1, 4)])
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(UNLOCKED)
    draft_id = opened(market)
    verified(market, draft_id)
    market.do("npb.scan_open_alerts")
    assert cancel(market, draft_id)["outcome"] == "done"


def test_a_draft_expires_after_a_day(waiting: Market) -> None:
    draft_id = opened(waiting)
    verified(waiting, draft_id)
    waiting.at(ORDERED + timedelta(hours=24))
    assert cancel(waiting, draft_id)["code"] == "DRAFT_EXPIRED"
    assert waiting.code("drafts.verify", draft_id=draft_id, member_id="seller") == "DRAFT_EXPIRED"
    waiting.at(ORDERED + timedelta(hours=24, microseconds=-1))
    assert cancel(waiting, draft_id)["outcome"] == "done"


def test_a_draft_belongs_to_its_seller(waiting: Market) -> None:
    draft_id = opened(waiting)
    for member in ("buyer", "other_seller"):
        assert waiting.code("drafts.verify", draft_id=draft_id, member_id=member) == "NOT_A_PARTY"
    assert waiting.code("drafts.verify", draft_id="no-such", member_id="seller") == "DRAFT_UNKNOWN"
    assert cancel(waiting, "no-such")["code"] == "DRAFT_UNKNOWN"


def test_a_draft_of_another_order_is_unknown(waiting: Market) -> None:
    draft_id = opened(waiting)
    waiting.order(1004)
    waiting.done("ocr.file", order_id=1004, member_id="seller", reason="S_BUYER_CHANGED_MIND", comment="Miscounted.")
    assert waiting.code("orders.cancel", order_id=1004, member_id="seller", draft_id=draft_id) == "DRAFT_UNKNOWN"


def test_a_draft_is_opened_only_where_cancelling_is_possible(market: Market) -> None:
    market.order(1003)
    arguments: dict[str, Any] = {"order_id": 1003, "consolidate": True, "values": {}}
    for member in ("seller", "stranger"):
        refused = market.code("orders.cancel", order_id=1003, member_id=member)
        assert market.code("drafts.open", member_id=member, **arguments) == refused is not None
    assert market.code("drafts.open", member_id="buyer", **arguments) == "WRONG_ROLE"
    assert market.code("drafts.open", member_id="seller", **(arguments | {"order_id": 9})) == "ORDER_UNKNOWN"
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    early = market.do("drafts.open", member_id="seller", **arguments)
    assert (early["code"], early["possible_from"]) == ("TOO_EARLY", "2026-04-11T10:00:00Z")


def test_a_draft_is_refused_where_nothing_returns(market: Market) -> None:
    """R64, R65: a buyer's cancellation and a terminated seller accept no draft."""
    market.order(1003)
    arguments: dict[str, Any] = {"order_id": 1003, "consolidate": True, "values": {}}
    market.at(FILED).done("nrs.file", order_id=1003, member_id="buyer", comment="Silence.")
    assert market.code("drafts.open", member_id="seller", **arguments) == "RETURN_NOT_ALLOWED"


@pytest.mark.parametrize("kind", ["nrs", "nss"])
def test_a_buyers_cancellation_accepts_no_draft(waiting: Market, kind: str) -> None:
    """R64: not even a verified draft of the seller."""
    draft_id = opened(waiting)
    verified(waiting, draft_id)
    waiting.done("ocr.withdraw", order_id=1003, member_id="seller")
    grounds = {"grounds": "NOT_SHIPPED"} if kind == "nss" else {}
    if kind == "nss":
        waiting.done("orders.record_payment", order_id=1003, payment_status="Received")
    waiting.at(FILED).done(f"{kind}.file", order_id=1003, member_id="buyer", comment="Silence.", **grounds)
    waiting.simulation.advance(FILED + 2 * WEEK)
    before = stock_and_answers(waiting)
    arguments = {"order_id": 1003, "member_id": "buyer"}
    assert waiting.code("orders.cancel", **arguments, draft_id=draft_id) == "RETURN_NOT_ALLOWED"
    assert stock_and_answers(waiting) == before
    assert waiting.code("orders.cancel", **arguments) is None


def test_a_terminated_seller_cannot_open_a_draft(waiting: Market) -> None:
    """R65."""
    draft_id = opened(waiting)
    verified(waiting, draft_id)
    waiting.done("members.terminate", member_id="seller", staff="ann", comment="Fraud.")
    assert cancel(waiting, draft_id)["code"] == "RETURN_NOT_ALLOWED"
    arguments: dict[str, Any] = {"order_id": 1003, "consolidate": True, "values": {}}
    assert waiting.code("drafts.open", member_id="seller", **arguments) == "RETURN_NOT_ALLOWED"


def test_step_four_is_refused_when_eligibility_was_lost_since_the_verification(market: Market) -> None:
    """R74: the buyer took the accepted penalty back."""
    market.lot(1, quantity=10)
    market.order(1003, [(1, 4)])
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.done("npb.accept_penalty", order_id=1003, member_id="buyer")
    draft_id = opened(market)
    verified(market, draft_id)
    market.done("npb.take_back", order_id=1003, member_id="buyer")
    assert cancel(market, draft_id)["code"] == "TOO_EARLY"
    assert market.units(1) == 6


MEANWHILE: dict[str, Callable[[Market], object]] = {
    "the lot was deleted": lambda m: m.done("inventory.delete_lot", lot_id=1, seller_id="seller"),
    "it was sold out": lambda m: buy(m, 6),
    "its price changed": lambda m: m.lot(1, **(LOT_1 | {"quantity": 6, "unit_price": "2.0000"})),
    "it became a part of a superlot": lambda m: m.lot(1, **(LOT_1 | {"quantity": 6, "bind_id": 7})),
    "it moved to a stockroom": lambda m: m.lot(1, **(LOT_1 | {"quantity": 6, "is_stock_room": True})),
}


def buy(market: Market, units: int) -> int:
    return market.order(1004, [(1, units)], buyer_id="stranger")


@pytest.mark.parametrize("what", MEANWHILE)
def test_step_four_does_what_was_verified_or_nothing(waiting: Market, what: str) -> None:
    """R110: the seller verifies again, sees what it would be now, and cancels."""
    draft_id = opened(waiting)
    first = verified(waiting, draft_id)
    MEANWHILE[what](waiting)
    before = stock_and_answers(waiting)
    for dry_run in (True, False):
        answer = cancel(waiting, draft_id, dry_run=dry_run)
        assert (answer["code"], "line 1" in answer["message"]) == ("DRAFT_STALE", True)
    assert stock_and_answers(waiting) == before
    second = verified(waiting, draft_id)
    assert second["state"] == "verified"
    assert second["lines"][0] != first["lines"][0]
    assert cancel(waiting, draft_id)["outcome"] == "done"


def test_a_sale_between_verification_and_cancellation_loses_nothing(waiting: Market) -> None:
    """R110, R78: quantities are added, whatever is on hand by then."""
    draft_id = opened(waiting)
    verified(waiting, draft_id)
    buy(waiting, 4)
    assert cancel(waiting, draft_id)["outcome"] == "done"
    assert waiting.units(1) == 6 - 4 + 4


def test_another_lot_that_would_be_chosen_makes_a_draft_stale(waiting: Market) -> None:
    """R110, R76: the line was to make a new lot, and now there is one of its item."""
    waiting.done("inventory.delete_lot", lot_id=1, seller_id="seller")
    draft_id = opened(waiting)
    assert verified(waiting, draft_id)["lines"][0]["new"]
    waiting.lot(9, **(LOT_1 | {"quantity": 1}))
    assert cancel(waiting, draft_id)["code"] == "DRAFT_STALE"


def test_the_first_of_two_drafts_can_make_the_second_stale(waiting: Market) -> None:
    """R110: in one batch, too: changes by the order before it count as changed by anyone."""
    waiting.order(1005, [(1, 1)], buyer_id="stranger")
    waiting.done("ocr.file", order_id=1005, member_id="seller", reason="S_MUTUAL", comment="agreed")
    first, second = opened(waiting, remarks="concatenate"), opened(waiting, order_id=1005)
    edit(waiting, first, {"line_no": 1, "fields": {"remarks": "Came back"}})
    for draft_id in (first, second):
        verified(waiting, draft_id)
    items = [
        {"order_id": order_id, "member_id": "seller", "draft_id": draft_id}
        for order_id, draft_id in ((1003, first), (1005, second))
    ]
    answers = waiting.done("orders.cancel_many", orders=items)["answers"]
    assert [answer["code"] or answer["outcome"] for answer in answers] == ["done", "DRAFT_STALE"]


def test_one_order_can_have_two_drafts(waiting: Market) -> None:
    first, second = opened(waiting), opened(waiting, price="new")
    assert first != second
    verified(waiting, second)
    assert cancel(waiting, second)["outcome"] == "done"
    assert waiting.code("drafts.verify", draft_id=first, member_id="seller") == "ALREADY_CANCELLED"


@pytest.mark.parametrize(
    "wrong",
    [{"consolidate": "yes"}, {"values": {"price": "average"}}, {"values": {"colour": "old"}}, {"values": None}],
)
def test_unknown_choices_are_invalid(waiting: Market, wrong: dict[str, Any]) -> None:
    arguments = {"order_id": 1003, "member_id": "seller", "consolidate": True, "values": {}} | wrong
    assert waiting.do("drafts.open", **arguments)["outcome"] == "invalid"


def test_a_verification_uses_the_terms_of_its_time(market: Market) -> None:
    """R110: it shows what a cancellation of the same time does, whatever terms came into force meanwhile."""
    market.lot(1, quantity=4, is_retain=True)
    market.order(1003, [(1, 4)])
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_BUYER_CHANGED_MIND", comment="Miscounted.")
    draft_id = opened(market)
    before, after = ORDERED + timedelta(minutes=10), ORDERED + timedelta(minutes=20)
    market.done("terms.apply", terms={"RELEASE_AUTO_STOCKROOM": True}, staff="ann", **{"from": format_timestamp(after)})
    market.at(after + timedelta(minutes=10))
    at_that_time = {"member_id": "seller", "occurred_at": format_timestamp(before)}
    (line,) = market.done("drafts.verify", draft_id=draft_id, **at_that_time)["lines"]
    assert (line["note"], line["values"]["is_stock_room"]) == ("RETURNED_TO_STOCKROOM", True)
    assert market.do("orders.cancel", order_id=1003, draft_id=draft_id, **at_that_time)["outcome"] == "done"
    (lot,) = market.lots()
    assert (lot.quantity, lot.is_stock_room) == (4, True)
