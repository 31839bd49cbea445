"""Lots in stock: take sold units out, record, delete and find lots, in a constant number of statements, under locks.

Lock order: a row of `item_locks` per item key, sorted (a lot that does not exist yet has no row to lock), then lots by
id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Select, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import is_any
from models.db.bulk import insert_rows, update_rows
from models.db.conflicts import StaleReadConflict
from models.db.schema import Base, BigInt
from models.lots import (
    KEY_COLUMNS,
    LotRow,
    StockMoveRow,
    lot_from_row,
    lot_to_row,
    stock_move_row,
)
from models.sql import load_sql
from policies.lots import Lot, LotKey


class ItemLockRow(Base):
    """A row per item that ever came back or was recorded, by the hash of its key (`models/sql/lock_items.sql`)."""

    __tablename__ = "item_locks"

    item: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)


@dataclass(frozen=True, slots=True)
class SoldUnits:
    order_id: int
    line_no: int
    lot: Lot
    quantity: int


def lock_lots(conn: Connection, lot_ids: Iterable[int]) -> dict[int, Lot]:
    lots = select(LotRow).where(is_any(LotRow.lot_id, set(lot_ids))).order_by(LotRow.lot_id)
    return {row.lot_id: lot_from_row(row) for row in conn.execute(lots.with_for_update())}


def remove_sold_units(conn: Connection, taken: Sequence[SoldUnits], now: datetime) -> None:
    """Take sold units out of locked lots. A sold-out lot moves to stockroom A when retained, else it is deleted.

    A reservation ends with its sale, since a lot in a stockroom cannot be reserved.
    """
    if not taken:
        return
    sold: dict[int, int] = {}
    for sale in taken:
        sold[sale.lot.lot_id] = sold.get(sale.lot.lot_id, 0) - sale.quantity
    change_quantities(conn, sold)
    sold_out = (is_any(LotRow.lot_id, sold), LotRow.quantity == 0)
    conn.execute(delete(LotRow).where(*sold_out, ~LotRow.is_retain))
    conn.execute(
        update(LotRow)
        .where(*sold_out, LotRow.is_retain, ~LotRow.is_stock_room)
        .values(is_stock_room=True, stock_room_id="A", auto_stockroom=True, reserved_for=None)
    )
    moves = [
        stock_move_row(t.lot.key, t.lot.lot_id, -t.quantity, "sold", now, order_id=t.order_id, line_no=t.line_no)
        for t in taken
    ]
    insert_rows(conn, StockMoveRow, moves)


def lock_recorded_lots(conn: Connection, lot_ids: Iterable[int], new_keys: Iterable[LotKey] = ()) -> dict[int, Lot]:
    """Lock the lots that the marketplace reports, with their items and `new_keys`, and return them as stored.

    Raises `StaleReadConflict` if a lot became another item meanwhile, so that the wrong item is locked.
    """
    ids = sorted(set(lot_ids))
    keys = {lot.key for lot in find_lots(conn, ids).values()} | set(new_keys)
    lock_item_keys(conn, keys)
    locked = lock_lots(conn, ids)
    if not {lot.key for lot in locked.values()} <= keys:
        raise StaleReadConflict
    return locked


def upsert_lots(conn: Connection, reported: Sequence[tuple[Lot | None, Lot]], now: datetime) -> None:
    """Write reported lots as (before, after) in order; `before` is None for a new lot.

    A difference in quantity is journaled as a manual adjustment; a lot that became another item moves its units.
    """
    before: dict[int, Lot | None] = {}
    for before_lot, lot in reported:
        before.setdefault(lot.lot_id, before_lot)
    after = {lot.lot_id: lot for _, lot in reported}
    insert_rows(conn, LotRow, [lot_to_row(lot) for i, lot in after.items() if before[i] is None])
    existing = {i: (before_lot, after[i]) for i, before_lot in before.items() if before_lot is not None}
    rows = [
        lot_to_row(lot)
        for before_lot, lot in existing.values()
        if replace(lot, quantity=before_lot.quantity) != before_lot
    ]
    update_rows(conn, LotRow, ["lot_id"], [{k: v for k, v in row.items() if k != "quantity"} for row in rows])
    change_quantities(conn, {i: lot.quantity - before_lot.quantity for i, (before_lot, lot) in existing.items()})
    insert_rows(
        conn, StockMoveRow, [move for before_lot, lot in reported for move in _stock_moves(before_lot, lot, now)]
    )


def _stock_moves(before: Lot | None, lot: Lot, now: datetime) -> list[dict[str, Any]]:
    if before is None:
        return [stock_move_row(lot.key, lot.lot_id, lot.quantity, "recorded", now)]
    if before.key == lot.key:
        units = [(lot.key, lot.quantity - before.quantity)]
    else:
        units = [(before.key, -before.quantity), (lot.key, lot.quantity)]
    return [stock_move_row(key, lot.lot_id, delta, "adjusted", now) for key, delta in units if delta]


def delete_lots(conn: Connection, lots: Sequence[Lot], now: datetime) -> None:
    """Delete locked lots; the units on hand are journaled as an adjustment, even if there were none (R100, R109)."""
    moves = [stock_move_row(lot.key, lot.lot_id, -lot.quantity, "adjusted", now) for lot in lots]
    conn.execute(delete(LotRow).where(is_any(LotRow.lot_id, [lot.lot_id for lot in lots])))
    insert_rows(conn, StockMoveRow, moves)


CANDIDATE_LOTS_SQL = load_sql("candidate_lots")
SELECT_CANDIDATE_LOTS = text(CANDIDATE_LOTS_SQL)
_LOCK_ITEM_KEYS = text(load_sql("lock_items"))


def lock_item_keys(conn: Connection, keys: Collection[LotKey]) -> None:
    conn.execute(_LOCK_ITEM_KEYS, key_arrays(list(keys)))


def find_lots(conn: Connection, lot_ids: Iterable[int]) -> dict[int, Lot]:
    rows = conn.execute(select(LotRow).where(is_any(LotRow.lot_id, set(lot_ids))))
    return {row.lot_id: lot_from_row(row) for row in rows}


def find_lots_of_items(conn: Connection, keys: Collection[LotKey]) -> dict[LotKey, list[Lot]]:
    lots: dict[LotKey, list[Lot]] = {}
    for row in conn.execute(SELECT_CANDIDATE_LOTS, key_arrays(list(keys))) if keys else ():
        lot = lot_from_row(row)
        lots.setdefault(lot.key, []).append(lot)
    return lots


def load_lots(conn: Connection, seller_id: str) -> list[Lot]:
    return [lot_from_row(row) for row in conn.execute(_lots_of(seller_id))]


def stream_lots(conn: Connection, seller_id: str) -> Iterator[Lot]:
    """Yield a seller's lots through a server-side cursor; a store may have hundreds of thousands."""
    for row in conn.execute(_lots_of(seller_id), execution_options={"stream_results": True, "yield_per": 1000}):
        yield lot_from_row(row)


def _lots_of(seller_id: str) -> Select[Any]:
    return select(LotRow).where(LotRow.seller_id == seller_id).order_by(LotRow.lot_id)


def change_quantities(conn: Connection, deltas: Mapping[int, int]) -> None:
    # Add signed differences, so that no concurrent sale is overwritten (R78).
    deltas = {lot_id: delta for lot_id, delta in deltas.items() if delta}
    if not deltas:
        return
    changed = conn.execute(_CHANGE_QUANTITIES, {"ids": list(deltas), "deltas": list(deltas.values())})
    if changed.rowcount != len(deltas):
        raise LotMissing(f"{len(deltas) - changed.rowcount} of {len(deltas)} lots do not exist. Lock them first.")


class LotMissing(Exception):
    pass


_DELTAS = func.unnest(bindparam("ids", type_=ARRAY(BigInteger)), bindparam("deltas", type_=ARRAY(Integer)))
_DELTA_ROWS = _DELTAS.table_valued("lot_id", "delta").render_derived("deltas")
_CHANGE_QUANTITIES = (
    update(LotRow).where(LotRow.lot_id == _DELTA_ROWS.c.lot_id).values(quantity=LotRow.quantity + _DELTA_ROWS.c.delta)
)


def key_arrays(keys: Sequence[LotKey]) -> dict[str, list[Any]]:
    return {column: [getattr(key, column) for key in keys] for column in KEY_COLUMNS}
