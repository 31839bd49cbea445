"""Return the items of many orders in one SQL statement; lines and lots never leave the database.

The statement does what `policies.returns.plan_return` does for one return; a property test compares the two on random
stock. The plan is used for a seller's draft, for a dry run, and where the statement raises `NeedsPlan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from models.db.pipeline import bool_array, execute, int_array
from models.sql import load_sql
from policies.returns import ReturnTotals

RETURN_ITEMS = load_sql("return_items")
LOCK_ITEMS = load_sql("lock_returning_items")
LOCK_LOTS = load_sql("lock_returning_lots")
NUMERIC_OUT_OF_RANGE = "22003"


class NeedsPlan(Exception):
    """A lot would exceed its maximum quantity or leave its stockroom: only the plan can decide the order of returns."""


def lock_stock(conn: Connection, order_ids: Sequence[int]) -> None:
    """Lock everything that these orders' lines could return to: items, then lots by id. Lock the orders first."""
    ids = int_array(order_ids)
    execute(conn, LOCK_ITEMS, {"ids": ids})
    execute(conn, LOCK_LOTS, {"ids": ids})


def return_items(
    conn: Connection, orders: Sequence[tuple[int, bool]], now: datetime, *, release: bool
) -> dict[int, ReturnTotals]:
    """Return what remains of each (order_id, whether items return), in this order; hold `lock_stock`.

    Writes lots, journal and lines. `release` is the term RELEASE_AUTO_STOCKROOM. On `NeedsPlan` the caller must roll
    back.
    """
    if not orders:
        return {}
    values = {
        "orders": int_array([order_id for order_id, _ in orders]),
        "returns": bool_array([returns for _, returns in orders]),
        "release": release,
        "now": now,
    }
    try:
        rows = execute(conn, RETURN_ITEMS, values).fetchall()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == NUMERIC_OUT_OF_RANGE:
            raise NeedsPlan from None
        raise
    if any(row.released for row in rows):
        raise NeedsPlan
    returned = {row.order_id: ReturnTotals(orjson.loads(row.lines), row.number, row.units) for row in rows}
    return {order_id: returned.get(order_id, ReturnTotals()) for order_id, _ in orders}
