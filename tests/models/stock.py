"""Takes and returns stock directly on a connection, without the tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from models import inventory, members, orders, returns
from models.db.bulk import insert_rows
from policies.cases import Order
from policies.lots import Lot
from policies.returns import ReturnPlan, plan_return
from policies.statuses import PaymentStatus, Status

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


def insert_lots(conn: Connection, *stock: Lot) -> None:
    members.upsert_members(
        conn,
        [
            {"member_id": m, "handle": m, "email": f"{m}@example.org", "time_zone": "UTC", "recorded_at": NOW}
            for m in ("s", "t", "b")
        ],
    )
    inventory.upsert_lots(conn, [(None, lot) for lot in stock], NOW)


def insert_order(conn: Connection, order_id: int, *lines: tuple[int, int]) -> None:
    lots = inventory.find_lots(conn, [lot_id for lot_id, _ in lines], lock=True)
    seller = lots[lines[0][0]].seller_id
    orders.insert_orders(
        conn, [Order(order_id, "b", seller, Status.PENDING, PaymentStatus.NONE, NOW, last_event_at=NOW)]
    )
    rows = [
        {
            "order_id": order_id,
            "line_no": number,
            "batch_no": 1,
            "lot_id": lot_id,
            "quantity": units,
            "unit_price": lots[lot_id].unit_price,
            "snapshot": lots[lot_id].snapshot(),
        }
        for number, (lot_id, units) in enumerate(lines, start=1)
    ]
    insert_rows(conn, orders.OrderLineRow, rows)
    inventory.remove_sold_units(conn, rows, lots, NOW)


def return_orders(conn: Connection, *order_ids: int) -> list[ReturnPlan]:
    lines = {
        order_id: orders.order_lines_to_return(rows)
        for order_id, rows in orders.load_order_lines(conn, order_ids).items()
    }
    stock_view = inventory.load_stock_view(conn, {line.item.key for rows in lines.values() for line in rows})
    plans = []
    for order_id in order_ids:
        plan = plan_return(order_id, lines[order_id], stock_view)
        stock_view.apply(plan)
        plans.append(plan)
    return returns.store_planned_returns(conn, plans, NOW)


def quantities(conn: Connection, seller: str = "s") -> dict[int, int]:
    return {lot.lot_id: lot.quantity for lot in inventory.stream_lots(conn, seller)}
