"""Returns items to lots: many orders in one SQL statement, without loading lines or lots, or one by one from plans.

The statement does what `policies.returns.plan_return` does for one return; a property test compares the two on random
stock. Plans are used for removals, for a seller's draft, for a dry run, and where the statement raises `NeedsPlan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from models import inventory, orders
from models.db.arrays import bool_array, int_array, is_any_of_ids
from models.db.bulk import insert_rows
from models.db.pipeline import execute
from models.sql import load_sql
from models.stock_moves import StockMoveRow, stock_move_row
from policies.returns import ReturnPlan, ReturnTotals, provisional_lot_ids

_RETURN_ITEMS = text(load_sql("return_items"))
_SNAPSHOT = orders.OrderLineRow.snapshot
_KEYS_OF_LINES = select(
    _SNAPSHOT["seller_id"].astext.label("seller_id"),
    _SNAPSHOT["item", "type"].astext.label("item_type"),
    _SNAPSHOT["item", "no"].astext.label("item_no"),
    _SNAPSHOT["color_id"].as_integer().label("color_id"),
    _SNAPSHOT["new_or_used"].astext.label("new_or_used"),
    _SNAPSHOT["completeness"].astext.label("completeness"),
).where(is_any_of_ids(orders.OrderLineRow.order_id))
_LOCK_RETURNING_ITEMS = inventory.insert_item_locks(_KEYS_OF_LINES.subquery())
_LOTS_OF_LINES = inventory.select_lots_of_items(_KEYS_OF_LINES.distinct().subquery(), inventory.LotRow.lot_id)
_LOCK_RETURNING_LOTS = _LOTS_OF_LINES.with_for_update(of=inventory.LotRow)
_RETURN_OVERFLOW_SQLSTATE = "22003"


class NeedsPlan(Exception):
    """A lot would exceed its maximum quantity or leave its stockroom: only the plan can decide the order of returns."""


def lock_stock_of_returns(conn: Connection, order_ids: Sequence[int]) -> None:
    """Lock everything that these orders' lines could return to: items, then lots by id. Lock the orders first."""
    ids = int_array(order_ids)
    execute(conn, _LOCK_RETURNING_ITEMS, {"ids": ids})
    execute(conn, _LOCK_RETURNING_LOTS, {"ids": ids})


def return_items(
    conn: Connection, returns: Sequence[tuple[int, bool]], now: datetime, *, release: bool
) -> dict[int, ReturnTotals]:
    """Return what remains of each (order_id, whether items return), in this order; hold `lock_stock_of_returns`.

    Writes lots, journal and lines. `release` is the term RELEASE_AUTO_STOCKROOM. On `NeedsPlan` the caller must roll
    back.
    """
    if not returns:
        return {}
    values = {
        "orders": int_array([order_id for order_id, _ in returns]),
        "returns": bool_array([is_returned for _, is_returned in returns]),
        "release": release,
        "now": now,
    }
    try:
        rows = execute(conn, _RETURN_ITEMS, values).fetchall()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _RETURN_OVERFLOW_SQLSTATE:
            raise NeedsPlan from None
        raise
    if any(row.released for row in rows):
        raise NeedsPlan
    returned = {row.order_id: ReturnTotals(orjson.loads(row.lines), row.number, row.units) for row in rows}
    return {order_id: returned.get(order_id, ReturnTotals()) for order_id, _ in returns}


def store_planned_returns(conn: Connection, plans: Sequence[ReturnPlan], now: datetime) -> list[ReturnPlan]:
    """Execute return plans in the order in which they were planned; return them with new lots numbered.

    Writes lots, the journal and, for cancellations (not removals), what each order line returned.
    """
    provisional_ids = provisional_lot_ids(plans)
    ids = dict(zip(provisional_ids, inventory.allocate_lot_ids(conn, len(provisional_ids)), strict=True))
    numbered_plans = [plan.with_lot_ids(ids) for plan in plans]
    before = {lot_id: lot for plan in reversed(numbered_plans) for lot_id, lot in plan.before.items()}
    after = {lot_id: lot for plan in numbered_plans for lot_id, lot in plan.lots.items()}
    new_ids = set(ids.values())
    inventory.store_lots(conn, [(None if lot_id in new_ids else before[lot_id], lot) for lot_id, lot in after.items()])
    moves = [
        stock_move_row(
            after[line.lot_id].key,
            line.lot_id,
            line.returned,
            "returned",
            now,
            order_id=plan.order_id,
            line_no=line.line_no,
            removal_id=plan.removal_id,
        )
        for plan in numbered_plans
        for line in plan.lines
        if line.returned and line.lot_id is not None
    ]
    insert_rows(conn, StockMoveRow, moves)
    lines = [
        {
            "order_id": plan.order_id,
            "line_no": line.line_no,
            "returned": line.returned,
            "returned_to_lot": line.lot_id,
            "note": line.note,
        }
        for plan in numbered_plans
        if plan.removal_id is None
        for line in plan.lines
    ]
    orders.update_order_lines(conn, lines)
    return numbered_plans


def preview_planned_returns(conn: Connection, plans: Sequence[ReturnPlan]) -> list[ReturnPlan]:
    """Return the plans with the ids that new lots would get now, for a dry run; writes nothing."""
    provisional_ids = provisional_lot_ids(plans)
    ids = dict(zip(provisional_ids, inventory.preview_lot_ids(conn, len(provisional_ids)), strict=True))
    return [plan.with_lot_ids(ids) for plan in plans]


def count_returned_units(conn: Connection, seller_id: str) -> dict[int, int]:
    returned = (StockMoveRow.seller_id == seller_id, StockMoveRow.kind == "returned")
    units = select(StockMoveRow.lot_id, func.sum(StockMoveRow.delta)).where(*returned).group_by(StockMoveRow.lot_id)
    return dict(conn.execute(units.order_by(StockMoveRow.lot_id)).all())
