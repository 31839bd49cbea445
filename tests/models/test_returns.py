"""Tests that the SQL statement of a return changes the same rows as the pure plan, on random stock."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from sqlalchemy import Connection

from models import inventory, orders, returns
from models.db.bulk import insert_rows
from models.db.pipeline import pipeline
from models.inventory import ItemLockRow, LotRow, allocate_lot_ids
from models.orders import OrderLineRow
from models.stock_moves import StockMoveRow
from policies.cases import Order
from policies.lots import MAX_UNITS, Lot
from policies.returns import QuantityOverflow, ReturnedLine, ReturnPlan, plan_nothing, plan_return
from policies.statuses import PaymentStatus, Status
from tests.models.stock import NOW, a_lot
from tests.models.stock import insert_lots as given_stock
from tests.plugins.stored_rows import count_rows, load_rows
from workers.simulation.engine import Simulation

Stock = tuple[list[Lot], list[Lot]]
"""Lots as order lines remember them, and lots as they are now."""


def shapes(numbers: some.SearchStrategy[int]) -> some.SearchStrategy[Lot]:
    """Lots of few different items, so that returns meet: some retained, reserved, in a stockroom or nearly full."""
    places = some.sampled_from(
        [
            {},
            {},
            {"is_stock_room": True},
            {"is_stock_room": True, "stock_room_id": "B", "is_retain": True},
            {"is_stock_room": True, "stock_room_id": "A", "is_retain": True, "auto_stockroom": True, "quantity": 0},
            {"reserved_for": "b"},
            {"bind_id": 7},
            {"quantity": MAX_UNITS - 3},
        ]
    )
    items = some.sampled_from(
        [
            {"item_no": "3001"},
            {"item_no": "3001", "new_or_used": "U"},
            {"item_no": "6990", "item_type": "SET", "completeness": "C"},
            {"item_no": "6990", "item_type": "SET", "completeness": "S"},
            {"item_no": " "},
        ]
    )
    values = some.sampled_from(
        [
            {},
            {"unit_price": Decimal("0.2500"), "remarks": "shelf \\ 5", "description": '"new"'},
            {"bulk": 2, "sale_rate": 10, "my_cost": Decimal("0.0100"), "my_weight": Decimal("2.3200")},
            {"unit_price": Decimal("1.0000"), "tiers": ((10, Decimal("0.9000")), (100, Decimal("0.8000")))},
        ]
    )
    return some.builds(
        lambda number, place, item, value: a_lot(number, **({"quantity": 5} | item | value | place)),
        numbers,
        places,
        items,
        values,
    )


LINE = some.tuples(some.integers(0, 7), some.integers(1, 9), some.integers(0, 9))
"""Which remembered lot, how many units were sold, and how many of them were removed since."""


@some.composite
def stocks(draw: some.DrawFn) -> Stock:
    """Sold lots that still exist, became another item or are gone, and lots that were added since."""
    sold = [draw(shapes(some.just(100 + n))) for n in range(8)]
    now = []
    for lot in sold:
        fate = draw(some.sampled_from(["there", "there", "changed", "gone"]))
        if fate == "there":
            now.append(replace(lot, quantity=min(lot.quantity, MAX_UNITS - 3)))
        elif fate == "changed":
            now.append(draw(shapes(some.just(lot.lot_id))))
    return sold, now + [
        draw(shapes(some.just(number))) for number in draw(some.sets(some.integers(50, 59), max_size=3))
    ]


PLAIN: Stock = ([a_lot(100 + n) for n in range(8)], [])


@given(
    stock=stocks(),
    wanted=some.lists(some.tuples(some.lists(LINE, min_size=1, max_size=4), some.booleans()), min_size=1, max_size=4),
    release=some.booleans(),
)
@example(stock=PLAIN, wanted=[([(0, 3, 0), (1, 2, 1)], True), ([(2, 4, 0)], True)], release=False)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_statement_returns_what_the_pure_plan_returns(
    simulation: Simulation, stock: Stock, wanted: list[tuple[list[tuple[int, int, int]], bool]], release: bool
) -> None:
    """R63 to R81: lots, journal, lines and effects are equal for every set of orders on every stock."""
    sold, now = stock
    with simulation.database.engine.connect() as conn, conn.begin() as transaction:
        given_stock(conn, *now)
        for number, (lines, _) in enumerate(wanted, start=1):
            an_order(conn, number, sold, lines)
        requested_returns = [(number, returns_items) for number, (_, returns_items) in enumerate(wanted, start=1)]
        by_plan = return_by_plan(conn, requested_returns, release)
        by_statement = return_by_statement(conn, requested_returns, release)
        transaction.rollback()
    if by_statement is None:
        assert by_plan is None or (release and any(lot.auto_stockroom for lot in now))
    else:
        assert by_statement == by_plan


def an_order(conn: Connection, number: int, sold: list[Lot], lines: list[tuple[int, int, int]]) -> None:
    orders.insert_orders(conn, [Order(number, "b", "s", Status.OCR, PaymentStatus.NONE, NOW, last_event_at=NOW)])
    insert_rows(
        conn,
        orders.OrderLineRow,
        [
            {
                "order_id": number,
                "line_no": line_no,
                "batch_no": 1,
                "lot_id": sold[which].lot_id,
                "quantity": units,
                "removed": min(removed, units),
                "unit_price": sold[which].unit_price,
                "snapshot": sold[which].snapshot(),
            }
            for line_no, (which, units, removed) in enumerate(lines, start=1)
        ],
    )


def return_by_plan(conn: Connection, requested_returns: list[tuple[int, bool]], release: bool) -> Any:
    """Return by the pure plan, order by order; None if a lot would overflow."""
    with conn.begin_nested() as savepoint:
        order_lines = orders.load_order_lines(conn, [number for number, _ in requested_returns])
        lines_to_return = {number: orders.order_lines_to_return(lines) for number, lines in order_lines.items()}
        keys = {line.item.key for lines in lines_to_return.values() for line in lines}
        stock_view = inventory.load_stock_view(conn, keys)
        plans: list[ReturnPlan] = []
        for number, returns_items in requested_returns:
            try:
                plan = (
                    plan_return(number, lines_to_return[number], stock_view, release_auto_stockroom=release)
                    if returns_items
                    else plan_nothing(number, [line.line_no for line in order_lines[number]])
                )
            except QuantityOverflow:
                savepoint.rollback()
                return None
            stock_view.apply(plan)
            plans.append(plan)
        reported = {plan.order_id: plan.lines for plan in returns.store_planned_returns(conn, plans, NOW)}
        stored = resulting_rows(conn, reported)
        savepoint.rollback()
    return stored


def return_by_statement(conn: Connection, requested_returns: list[tuple[int, bool]], release: bool) -> Any:
    """Return by the statement; None if it declines."""
    with conn.begin_nested() as savepoint:
        with pipeline(conn):
            returns.lock_stock_of_returns(conn, [number for number, _ in requested_returns])
        try:
            back = returns.return_items(conn, requested_returns, NOW, release=release)
        except returns.NeedsPlan:
            savepoint.rollback()
            return None
        reported = {number: tuple(ReturnedLine(**line) for line in one.lines) for number, one in back.items()}
        for one in back.values():
            assert one.units_returned == sum(line["returned"] for line in one.lines)
            assert one.lines_returned == sum(1 for line in one.lines if line["returned"])
        stored = resulting_rows(conn, reported)
        savepoint.rollback()
    return stored


GENERATED_COLUMNS = ("move_id", "written_in")


def resulting_rows(conn: Connection, reported: dict[int, tuple[ReturnedLine, ...]]) -> Any:
    """Rows and answers, with new lots numbered 1, 2, … by id."""
    lots = load_rows(conn, LotRow)
    own = [lot.lot_id for lot in lots if lot.lot_id >= 9_000_000_000_000]
    numbered = {lot_id: -place for place, lot_id in enumerate(own, start=1)}

    def named(lot_id: int | None) -> int | None:
        return None if lot_id is None else numbered.get(lot_id, lot_id)

    def facts(row: LotRow | StockMoveRow) -> dict[str, Any]:
        return {
            name: named(row.lot_id) if name == "lot_id" else getattr(row, name)
            for name in row.__table__.columns.keys()  # noqa: SIM118 - columns are no mapping
            if name not in GENERATED_COLUMNS
        }

    return {
        "lots": [facts(lot) for lot in lots],
        "moves": [facts(move) for move in load_rows(conn, StockMoveRow, kind="returned")],
        "lines": [
            (line.order_id, line.line_no, line.returned, named(line.returned_to_lot), line.note)
            for line in load_rows(conn, OrderLineRow)
        ],
        "reported": {n: [replace(line, lot_id=named(line.lot_id)) for line in lines] for n, lines in reported.items()},
    }


@pytest.mark.parametrize("units", [3, 4])
def test_statement_declines_a_lot_that_would_overflow(simulation: Simulation, units: int) -> None:
    """The last unit that fits is returned by the statement; with one more it declines and writes nothing."""
    full = a_lot(100, quantity=MAX_UNITS - 3)
    with simulation.database.engine.connect() as conn, conn.begin() as transaction:
        given_stock(conn, full)
        an_order(conn, 1, [full], [(0, units, 0)])
        assert (return_by_statement(conn, [(1, True)], release=False) is None) == (units > 3)
        transaction.rollback()


def test_statement_that_declines_consumes_no_lot_id(simulation: Simulation) -> None:
    """A sequence is not rolled back, and the pure plan must give the new lot the id that a dry run predicted."""
    put_away = a_lot(100, item_no="3001", is_stock_room=True, is_retain=True, auto_stockroom=True, quantity=0)
    gone = a_lot(101, item_no="3002")
    with simulation.database.engine.connect() as conn, conn.begin() as transaction:
        given_stock(conn, put_away)
        an_order(conn, 1, [put_away, gone], [(0, 1, 0), (1, 1, 0)])
        (first,) = allocate_lot_ids(conn, 1)
        assert return_by_statement(conn, [(1, True)], release=True) is None
        assert allocate_lot_ids(conn, 1) == [first + 1]
        assert return_by_statement(conn, [(1, True)], release=False) is not None
        assert allocate_lot_ids(conn, 1) == [first + 3]
        transaction.rollback()


def test_returns_and_plans_lock_the_same_items(simulation: Simulation) -> None:
    sold = [a_lot(100), a_lot(101, item_no="6990", item_type="SET", completeness="C", color_id=0)]
    with simulation.database.engine.connect() as conn, conn.begin() as transaction:
        given_stock(conn, *sold)
        an_order(conn, 1, sold, [(0, 1, 0), (1, 1, 0)])
        inventory.lock_item_keys(conn, [lot.key for lot in sold])
        returns.lock_stock_of_returns(conn, [1])
        assert count_rows(conn, ItemLockRow) == len(sold)
        transaction.rollback()
