"""Does the database keep stock right: taken, put back, numbered, and journalled once?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from models import inventory, members, orders
from models.inventory import Taken
from models.lots import lot_row, lots
from models.sets import insert_set
from policies.cases import Order
from policies.inventory import Lot, ReturnPlan, plan_return
from policies.statuses import PaymentStatus, Status
from workers.stage import Stage

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_lot(lot_id: int, **fields: Any) -> Lot:
    known: dict[str, Any] = {
        "seller_id": "s",
        "item_type": "PART",
        "item_no": "3001",
        "color_id": 5,
        "quantity": 10,
        "new_or_used": "N",
        "unit_price": Decimal("0.1000"),
    }
    return Lot(lot_id, **(known | fields))


def given(conn: Connection, *stock: Lot) -> None:
    """Two sellers, a buyer, and these lots."""
    members.record(
        conn,
        [
            {"member_id": m, "handle": m, "email": f"{m}@example.org", "time_zone": "UTC", "recorded_at": NOW}
            for m in ("s", "t", "b")
        ],
    )
    insert_set(conn, lots, [lot_row(lot) for lot in stock])


def bought(conn: Connection, order_id: int, *wanted: tuple[int, int]) -> None:
    """An order of (lot, units), submitted as the marketplace does it."""
    held = inventory.lock_lots(conn, [lot_id for lot_id, _ in wanted])
    seller = held[wanted[0][0]].seller_id
    orders.insert(conn, [Order(order_id, "b", seller, Status.PENDING, PaymentStatus.NONE, NOW, last_event_at=NOW)])
    orders.add_lines(
        conn,
        [
            {
                "order_id": order_id,
                "line_no": number,
                "batch_no": 1,
                "lot_id": lot_id,
                "quantity": units,
                "unit_price": held[lot_id].unit_price,
                "snapshot": held[lot_id].snapshot(),
            }
            for number, (lot_id, units) in enumerate(wanted, start=1)
        ],
    )
    taken = [Taken(order_id, n, held[lot_id], units) for n, (lot_id, units) in enumerate(wanted, start=1)]
    inventory.take(conn, taken, NOW)


def returned(conn: Connection, *order_ids: int) -> list[ReturnPlan]:
    """Put these orders back as one set."""
    lines = {order_id: inventory.returning(rows) for order_id, rows in orders.lines_of(conn, order_ids).items()}
    shelf = inventory.lots_for_return(conn, [line for found in lines.values() for line in found])
    plans = []
    for order_id in order_ids:
        plan = plan_return(order_id, lines[order_id], shelf)
        shelf.take(plan)
        plans.append(plan)
    return inventory.apply_return(conn, plans, NOW)


def on_hand(conn: Connection, seller: str = "s") -> dict[int, int]:
    return {lot.lot_id: lot.quantity for lot in inventory.lots_of(conn, seller)}


def test_units_come_back_to_the_lot_they_were_sold_from(stage: Stage) -> None:
    """R66."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1), a_lot(2))
        before = inventory.lots_of(conn, "s")
        bought(conn, 100, (2, 4))
        assert on_hand(conn) == {1: 10, 2: 6}
        (plan,) = returned(conn, 100)
        assert plan.effects() == [{"line_no": 1, "returned": 4, "lot_id": 2, "note": None}]
        assert inventory.lots_of(conn, "s") == before


def test_a_lot_that_sold_out_is_gone_and_comes_back_under_a_new_number(stage: Stage) -> None:
    """R67, rules.md 5.6."""
    with stage.database.transaction() as conn:
        old = a_lot(1, remarks="Box 7", tiers=((5, Decimal("0.0900")),))
        given(conn, old)
        bought(conn, 100, (1, 10))
        assert on_hand(conn) == {}
        (plan,) = returned(conn, 100)
        (new,) = inventory.lots_of(conn, "s")
        assert new == replace(old, lot_id=9_000_000_000_000)
        assert plan.lines[0].lot_id == new.lot_id


def test_a_retained_lot_that_sold_out_waits_in_stockroom_a(stage: Stage) -> None:
    """R77."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1, is_retain=True))
        bought(conn, 100, (1, 10))
        (empty,) = inventory.lots_of(conn, "s")
        assert (empty.quantity, empty.is_stock_room, empty.stock_room_id, empty.auto_stockroom) == (0, True, "A", True)
        (plan,) = returned(conn, 100)
        assert plan.effects() == [{"line_no": 1, "returned": 10, "lot_id": 1, "note": "RETURNED_TO_STOCKROOM"}]


def test_a_set_of_orders_of_two_sellers_returns_in_one_go_and_makes_one_new_lot_per_item(stage: Stage) -> None:
    """R75, C27."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1), a_lot(2, seller_id="t"))
        bought(conn, 100, (1, 4))
        bought(conn, 101, (1, 6))
        bought(conn, 102, (2, 10))
        plans = returned(conn, 100, 101, 102)
        mine, theirs = plans[0].lines[0].lot_id, plans[2].lines[0].lot_id
        assert plans[1].lines[0].lot_id == mine != theirs
        assert (on_hand(conn), on_hand(conn, "t")) == ({mine: 10}, {theirs: 10})


def test_what_a_dry_run_foresees_is_what_happens(stage: Stage) -> None:
    """Contract 2.3: the plan of a dry run names the very lot that the real run makes."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1), a_lot(2, color_id=6))
        bought(conn, 100, (1, 10), (2, 10))
        lines = inventory.returning(orders.lines_of(conn, [100])[100])
        for _ in range(2):
            shelf = inventory.lots_for_return(conn, lines, lock=False)
            (seen,) = inventory.foreseen(conn, [plan_return(100, lines, shelf)])
        (done,) = returned(conn, 100)
        assert seen == done


def test_a_line_that_returned_once_never_returns_again(stage: Stage) -> None:
    """R79: planned again nothing is left; forced, the journal's key says no."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1))
        bought(conn, 100, (1, 4))
        (first,) = returned(conn, 100)
        (again,) = returned(conn, 100)
        assert again.lines[0].returned == 0
    with pytest.raises(IntegrityError, match="uq_stock_moves_returned"), stage.database.transaction() as conn:
        inventory.apply_return(conn, [first], NOW)
    with stage.database.transaction() as conn:
        assert on_hand(conn) == {1: 10}


def test_the_journal_adds_up_to_what_is_on_hand(stage: Stage) -> None:
    """promises.md, invariant 4."""
    with stage.database.transaction() as conn:
        given(conn, a_lot(1))
        bought(conn, 100, (1, 4))
        returned(conn, 100)
        moves = conn.execute(text("SELECT kind, delta, order_id FROM unwind.stock_moves ORDER BY move_id")).all()
        assert [tuple(m) for m in moves] == [("sold", -4, 100), ("returned", 4, 100)]
