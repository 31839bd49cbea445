"""Properties that hold for every return, whatever the inventory and the order are."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from policies.lots import MAX_UNITS, Lot, LotKey, LotSnapshot, lot_from_snapshot
from policies.returns import (
    QuantityOverflow,
    ReturningLine,
    ReturnNote,
    ReturnPlan,
    StockView,
    may_be_return_target,
    plan_nothing,
    plan_return,
)

prices = some.decimals("0.0001", "99.9999", places=4)
rooms = some.sampled_from([(False, None, False), (True, "A", True), (True, "B", False)])


@some.composite
def lots(draw: some.DrawFn, lot_id: int) -> Lot:
    in_room, stockroom, auto = draw(rooms)
    return Lot(
        lot_id=lot_id,
        seller_id=draw(some.sampled_from(["s", "t"])),
        item_type="PART",
        item_no=draw(some.sampled_from(["3001", "3001", "3002", ""])),
        color_id=draw(some.sampled_from([5, 7])),
        quantity=draw(some.integers(0, 20)),
        new_or_used=draw(some.sampled_from(["N", "U"])),
        unit_price=draw(prices),
        bind_id=draw(some.sampled_from([0, 0, 0, 9])),
        remarks=draw(some.sampled_from(["", "Box"])),
        is_retain=draw(some.booleans()),
        is_stock_room=in_room,
        stock_room_id=stockroom,
        auto_stockroom=auto,
        reserved_for=None if in_room else draw(some.sampled_from([None, None, "ann"])),
    )


inventories = some.integers(0, 6).flatmap(lambda n: some.tuples(*(lots(i) for i in range(1, n + 1))))
orders = some.integers(1, 5).flatmap(
    lambda n: some.tuples(
        *(
            some.builds(
                ReturningLine,
                line_no=some.just(i),
                units=some.integers(0, 9),
                item=some.integers(1, 8).flatmap(lots).map(lambda lot: replace(lot, seller_id="s")),
            )
            for i in range(1, n + 1)
        )
    )
)


def units(held: list[Lot]) -> dict[LotKey, int]:
    units_by_item: dict[LotKey, int] = {}
    for lot in held:
        units_by_item[lot.key] = units_by_item.get(lot.key, 0) + lot.quantity
    return {key: count for key, count in units_by_item.items() if count}


def after(stock_view: StockView, plan: ReturnPlan) -> list[Lot]:
    return list((stock_view.lots | dict(plan.lots)).values())


@given(inventories, orders)
def test_every_unit_returns_to_its_own_item(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    stock_view = StockView(held)
    plan = plan_return(1, lines, stock_view)
    back = [replace(line.item.full_lot, quantity=line.units) for line in lines]
    assert units(after(stock_view, plan)) == units([*held, *back])
    assert [line.returned for line in plan.lines] == [line.units for line in lines]


@given(inventories, orders)
def test_ineligible_lots_never_receive_items(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    """R81: bonds, reservations, the catalogue, other sellers."""
    for lot_id, was in plan_return(1, lines, StockView(held)).before.items():
        assert may_be_return_target(was), lot_id
        assert was.seller_id == "s"


@given(inventories, orders)
def test_return_without_draft_changes_only_quantities(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    """R66."""
    plan = plan_return(1, lines, StockView(held))
    for lot_id, was in plan.before.items():
        assert replace(plan.lots[lot_id], quantity=was.quantity) == was


@given(inventories, orders, some.randoms())
def test_plan_does_not_depend_on_the_order_of_lots_or_lines(
    held: tuple[Lot, ...], lines: tuple[ReturningLine, ...], chance: random.Random
) -> None:
    """R76."""
    shuffled_lots, shuffled_lines = list(held), list(lines)
    chance.shuffle(shuffled_lots)
    chance.shuffle(shuffled_lines)
    assert plan_return(1, lines, StockView(held)) == plan_return(1, shuffled_lines, StockView(shuffled_lots))


@given(inventories, orders, orders)
def test_orders_of_a_batch_are_planned_in_sequence(
    held: tuple[Lot, ...], first: tuple[ReturningLine, ...], second: tuple[ReturningLine, ...]
) -> None:
    """The second order sees the lots as the first left them; the totals do not depend on the sequence."""

    def played(*orders: tuple[ReturningLine, ...]) -> dict[LotKey, int]:
        stock_view = StockView(held)
        for number, lines in enumerate(orders):
            stock_view.apply(plan_return(number, lines, stock_view))
        return units(list(stock_view.lots.values()))

    assert played(first, second) == played(second, first)


@given(inventories, orders)
def test_planning_does_not_change_the_stock(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    """R72: so a dry run and the real run have the same plan."""
    stock_view = StockView(held)
    assert plan_return(1, lines, stock_view) == plan_return(1, lines, stock_view)


@given(inventories, orders)
def test_at_most_one_new_lot_per_item_unless_it_is_to_be_reviewed(
    held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]
) -> None:
    """R75."""
    stock_view = StockView(held)
    for number in (1, 2):
        stock_view.apply(plan_return(number, lines, stock_view))
    plain = [lot.key for lot in stock_view.lots.values() if lot.lot_id < 0 and may_be_return_target(lot)]
    bound = {line.item.key for line in lines if line.item.bind_id}
    assert all(plain.count(key) == 1 for key in set(plain) - bound)


@given(inventories, orders)
def test_notes_mark_lines_that_need_a_review(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    """R77."""
    plan = plan_return(1, lines, StockView(held))
    for line in plan.lines:
        if line.lot_id is None:
            assert line.note is None
        elif line.note is not ReturnNote.NEEDS_REVIEW:
            assert (line.note is ReturnNote.RETURNED_TO_STOCKROOM) == plan.lots[line.lot_id].is_stock_room


@given(inventories, orders)
def test_snapshot_plans_like_the_lot(held: tuple[Lot, ...], lines: tuple[ReturningLine, ...]) -> None:
    remembered = [replace(line, item=LotSnapshot(line.item.full_lot.snapshot())) for line in lines]
    assert plan_return(1, remembered, StockView(held)) == plan_return(1, lines, StockView(held))


@given(some.integers(1, 9).flatmap(lots), some.integers(0, 99))
def test_with_quantity_changes_only_the_quantity(lot: Lot, quantity: int) -> None:
    """R66: the fast way and the plain way agree."""
    assert lot.with_quantity(quantity) == replace(lot, quantity=quantity)


@given(some.integers(1, 9).flatmap(lots))
def test_snapshot_round_trips(lot: Lot) -> None:
    assert lot_from_snapshot(lot.snapshot()) == replace(lot, auto_stockroom=False)


def test_lot_overflow_stops_the_whole_return() -> None:
    lot = Lot(1, "s", "PART", "3001", 5, MAX_UNITS - 3, "N", Decimal(1))
    assert plan_return(1, [ReturningLine(1, 3, lot)], StockView([lot])).lots[1].quantity == MAX_UNITS
    with pytest.raises(QuantityOverflow):
        plan_return(1, [ReturningLine(1, 2, lot), ReturningLine(2, 2, lot)], StockView([lot]))


def test_plan_nothing_lists_every_line() -> None:
    """R64, R65."""
    plan = plan_nothing(1, [2, 1])
    assert [line.effects() for line in plan.lines] == [
        {"line_no": n, "returned": 0, "lot_id": None, "note": None} for n in (1, 2)
    ]
