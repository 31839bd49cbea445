"""Return the items of many orders in one SQL statement; lines and lots never leave the database.

The statement does what `policies.inventory.plan_return` does for one return; a property test compares the two on random
stock. The plan is used for a seller's draft, for a dry run, and where the statement raises `NeedsPlan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from models.db.locks import lock_items
from models.db.pipeline import bool_array, execute, int_array
from models.inventory import item_lock_sql
from models.lots import KEY_COLUMNS
from policies.inventory import Note, ReturnTotals

NUMERIC_OUT_OF_RANGE = "22003"


class NeedsPlan(Exception):
    """A lot would exceed its maximum quantity or leave its stockroom: only the plan can decide the order of returns."""


def lock_stock(conn: Connection, order_ids: Sequence[int]) -> None:
    """Lock everything that these orders' lines could return to: items, then lots by id. Lock the orders first."""
    ids = int_array(order_ids)
    execute(conn, _LOCK_ITEMS, {"ids": ids})
    execute(conn, _LOCK_LOTS, {"ids": ids})


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
        rows = execute(conn, _RETURN_ITEMS, values).fetchall()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == NUMERIC_OUT_OF_RANGE:
            raise NeedsPlan from None
        raise
    if any(row.released for row in rows):
        raise NeedsPlan
    returned = {row.order_id: ReturnTotals(orjson.loads(row.lines), row.number, row.units) for row in rows}
    return {order_id: returned.get(order_id, ReturnTotals()) for order_id, _ in orders}


def _same_key(alias: str, other: str) -> str:
    return " AND ".join(
        f"{alias}.{name} {'IS NOT DISTINCT FROM' if name == 'completeness' else '='} {other}.{name}"
        for name in KEY_COLUMNS
    )


_KEY_OF_LINE = """l.snapshot ->> 'seller_id' AS seller_id, l.snapshot #>> '{item,type}' AS item_type,
    l.snapshot #>> '{item,no}' AS item_no, CAST(l.snapshot ->> 'color_id' AS integer) AS color_id,
    l.snapshot ->> 'new_or_used' AS new_or_used, l.snapshot ->> 'completeness' AS completeness"""
_KEYS = ", ".join(KEY_COLUMNS)
_KEYS_OF_ORDERS = (
    f"SELECT DISTINCT {_KEY_OF_LINE} FROM unwind.order_lines AS l WHERE l.order_id = ANY(CAST(%(ids)s AS bigint[]))"  # noqa: S608 - constants
)

_LOCK_ITEMS = lock_items(f"SELECT DISTINCT {item_lock_sql('k')} FROM ({_KEYS_OF_ORDERS}) AS k ORDER BY 1")  # noqa: S608 - constants
_LOCK_LOTS = f"""
    SELECT c.lot_id FROM unwind.lots AS c JOIN ({_KEYS_OF_ORDERS}) AS k ON {_same_key("c", "k")} ORDER BY c.lot_id
        FOR UPDATE OF c
"""  # noqa: S608 - constants

_DEFAULTS = '{"description": "", "remarks": "", "bulk": 1, "is_retain": false, "is_stock_room": false, "sale_rate": 0}'
"""Defaults of a new lot for fields that its snapshot lacks."""

_RETURN_ITEMS = f"""
WITH line AS MATERIALIZED (
    SELECT requested.position, l.order_id, l.line_no, l.lot_id AS source, l.snapshot, {_KEY_OF_LINE},
        CASE WHEN requested.returns THEN GREATEST(l.quantity - l.removed - l.returned, 0) ELSE 0 END AS units,
        COALESCE(CAST(l.snapshot ->> 'bind_id' AS bigint), 0) <> 0
            OR l.snapshot #>> '{{item,no}}' !~ '\\S' AS needs_own_lot
    FROM unnest(CAST(%(orders)s AS bigint[]), CAST(%(returns)s AS boolean[])) WITH ORDINALITY
        AS requested (order_id, returns, position)
    JOIN unwind.order_lines AS l ON l.order_id = requested.order_id
), with_target AS MATERIALIZED (
    SELECT line.*, COALESCE(f.lot_id, t.lot_id) AS target, COALESCE(f.is_stock_room, t.is_stock_room) AS in_stockroom,
        %(release)s AND COALESCE(f.is_stock_room AND f.auto_stockroom, t.is_stock_room AND t.auto_stockroom) AS released
    FROM line LEFT JOIN unwind.lots AS f ON f.lot_id = line.source AND {_same_key("f", "line")}
        AND f.bind_id = 0 AND f.reserved_for IS NULL AND line.units > 0 AND NOT line.needs_own_lot
    LEFT JOIN LATERAL (
        SELECT c.* FROM unwind.lots AS c WHERE f.lot_id IS NULL AND line.units > 0 AND NOT line.needs_own_lot
            AND {_same_key("c", "line")} AND c.bind_id = 0 AND c.reserved_for IS NULL
        ORDER BY c.is_stock_room, c.lot_id LIMIT 1
    ) AS t ON true
), without_target AS (
    SELECT *, row_number() OVER (PARTITION BY {_KEYS}, needs_own_lot,
        CASE WHEN needs_own_lot THEN (position, line_no) END ORDER BY position, line_no) AS nth
    FROM with_target WHERE units > 0 AND target IS NULL AND NOT EXISTS (SELECT FROM with_target WHERE released)
), new_lot AS MATERIALIZED (
    SELECT nextval('unwind.own_lot_ids') AS lot_id, h.*
    FROM (SELECT * FROM without_target WHERE nth = 1 ORDER BY position, line_no) AS h
), assigned AS MATERIALIZED (
    SELECT p.*, COALESCE(p.target, c.lot_id) AS lot_id, CASE
        WHEN p.target IS NOT NULL AND p.in_stockroom THEN '{Note.RETURNED_TO_STOCKROOM}'
        WHEN c.position = p.position AND c.line_no = p.line_no
            AND (p.needs_own_lot OR p.snapshot ->> 'reserved_for' IS NOT NULL)
            THEN '{Note.NEEDS_REVIEW}'
        WHEN CAST(c.snapshot ->> 'is_stock_room' AS boolean) THEN '{Note.RETURNED_TO_STOCKROOM}' END AS note
    FROM with_target AS p LEFT JOIN new_lot AS c ON p.units > 0 AND p.target IS NULL AND {_same_key("c", "p")}
        AND CASE WHEN p.needs_own_lot THEN c.position = p.position AND c.line_no = p.line_no
            ELSE NOT c.needs_own_lot END
), lot_units AS MATERIALIZED (
    SELECT lot_id, CAST(sum(units) AS integer) AS units FROM assigned WHERE lot_id > 0 GROUP BY lot_id
), inserted AS (
    INSERT INTO unwind.lots SELECT r.* FROM new_lot AS m JOIN lot_units AS a USING (lot_id),
        jsonb_populate_record(NULL::unwind.lots, '{_DEFAULTS}' || jsonb_strip_nulls(m.snapshot) || jsonb_build_object(
            'lot_id', lot_id, 'item_type', item_type, 'item_no', item_no, 'quantity', a.units, 'bind_id', 0,
            'auto_stockroom', false, 'reserved_for', NULL)) AS r
), increased AS (
    UPDATE unwind.lots AS t SET quantity = t.quantity + a.units FROM lot_units AS a WHERE t.lot_id = a.lot_id
), journaled AS (
    INSERT INTO unwind.stock_moves ({_KEYS}, lot_id, delta, kind, order_id, line_no, at)
    SELECT {_KEYS}, lot_id, units, 'returned', order_id, line_no, %(now)s FROM assigned WHERE lot_id > 0
    ORDER BY position, line_no
), updated AS (
    UPDATE unwind.order_lines AS l SET returned = s.units, returned_to_lot = s.lot_id, note = s.note FROM assigned AS s
    WHERE l.order_id = s.order_id AND l.line_no = s.line_no AND s.lot_id > 0
)
SELECT order_id, CAST(json_agg(json_build_object('line_no', line_no, 'returned', units, 'lot_id', lot_id, 'note', note)
    ORDER BY line_no) AS text) AS lines, count(*) FILTER (WHERE units > 0) AS number,
    CAST(sum(units) AS bigint) AS units,
    bool_or(released) AS released
FROM assigned GROUP BY order_id
"""  # noqa: S608 - constants
"""If a lot would be released, no id is allocated: a sequence does not roll back, and a dry run shows the next id."""
