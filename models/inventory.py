"""Lots in stock: their table; selling, recording, deleting and finding lots under locks.

A constant number of statements handles any number of lots. Lock order: a row of `item_locks` per item key, sorted (a
lot that does not exist yet has no row to lock), then lots by id. Per seller and item key, recorded + returned - sold +
adjusted = on hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, Text, delete, func, select, text, update
from sqlalchemy import Sequence as SqlSequence
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql import FromClause

from models.db.arrays import array_rows, is_any
from models.db.bulk import insert_rows, update_rows
from models.db.conflicts import Conflict
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, Price, check_finite, check_in, metadata
from models.db.selects import AnySelect
from models.stock_moves import StockMoveRow, stock_move_row
from policies.lots import COMPLETENESS, CONDITIONS, FIRST_UNWIND_LOT_ID, STOCKROOMS, Lot, LotKey
from policies.returns import StockView

KEY_COLUMNS = LotKey._fields


class LotRow(Base):
    __tablename__ = "lots"

    lot_id: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    seller_id: Mapped[str] = mapped_column(Text, ForeignKey("unwind.members.member_id"))  # `array_rows` needs it
    item_type: Mapped[str]
    item_no: Mapped[str]
    color_id: Mapped[int]
    new_or_used: Mapped[str]
    completeness: Mapped[str | None]
    quantity: Mapped[int]
    unit_price: Mapped[Decimal] = mapped_column(Price)
    bind_id: Mapped[BigInt]
    description: Mapped[str]
    remarks: Mapped[str]
    bulk: Mapped[int]
    is_retain: Mapped[bool]
    is_stock_room: Mapped[bool]
    stock_room_id: Mapped[str | None]
    auto_stockroom: Mapped[bool]
    my_cost: Mapped[Decimal | None] = mapped_column(Price)
    my_weight: Mapped[Decimal | None] = mapped_column(Price)
    sale_rate: Mapped[int]
    tier_quantity1: Mapped[int | None]
    tier_price1: Mapped[Decimal | None] = mapped_column(Price)
    tier_quantity2: Mapped[int | None]
    tier_price2: Mapped[Decimal | None] = mapped_column(Price)
    tier_quantity3: Mapped[int | None]
    tier_price3: Mapped[Decimal | None] = mapped_column(Price)
    reserved_for: Mapped[str | None]

    __table_args__ = (
        check_in("new_or_used", CONDITIONS),
        check_in("completeness", COMPLETENESS),
        check_in("stock_room_id", STOCKROOMS),
        *(
            check_finite(name)
            for name in ("unit_price", "my_cost", "my_weight", *(f"tier_price{n}" for n in (1, 2, 3)))
        ),
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),  # the type holds 2^31 - 1 and no more
        CheckConstraint("unit_price > 0", name="price_above_zero"),
        CheckConstraint("my_cost >= 0", name="cost_not_negative"),
        CheckConstraint("my_weight >= 0", name="weight_not_negative"),
        CheckConstraint("sale_rate BETWEEN 0 AND 99", name="sale_rate_below_100"),
        CheckConstraint("bulk >= 1", name="bulk_at_least_one"),
        CheckConstraint("stock_room_id IS NULL OR is_stock_room", name="stock_room_id_only_in_stockroom"),
        CheckConstraint("is_stock_room OR NOT auto_stockroom", name="auto_stockroom_only_in_stockroom"),
        CheckConstraint("reserved_for IS NULL OR NOT is_stock_room", name="reserved_not_in_stockroom"),
        *(
            CheckConstraint(
                f"tier_quantity{n} IS NULL AND tier_price{n} IS NULL OR "
                f"(tier_quantity{n} > {quantity} AND tier_price{n} > 0 AND tier_price{n} < {price}) IS TRUE",
                name=f"tier{n}_more_units_lower_price",
            )
            for n, quantity, price in (
                (1, "0", "unit_price"),
                (2, "tier_quantity1", "tier_price1"),
                (3, "tier_quantity2", "tier_price2"),
            )
        ),
        Index("ix_lots_key", *KEY_COLUMNS),
    )


own_lot_ids = SqlSequence("own_lot_ids", start=FIRST_UNWIND_LOT_ID, minvalue=FIRST_UNWIND_LOT_ID, metadata=metadata)


class ItemLockRow(Base):
    """A row per item that ever came back or was recorded, by the hash of its key (`insert_item_locks`)."""

    __tablename__ = "item_locks"

    item: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)


def lot_from_row(row: Any) -> Lot:
    tiers = [(getattr(row, f"tier_quantity{n}"), getattr(row, f"tier_price{n}")) for n in (1, 2, 3)]
    return from_row(Lot, row, tiers=tuple(tier for tier in tiers if tier[0] is not None))


def _lot_to_row(lot: Lot) -> dict[str, Any]:
    return to_row(lot, _LOT_COLUMNS) | lot.tier_fields


_LOT_COLUMNS = tuple(field.name for field in fields(Lot) if field.name not in ("quantity", "tiers"))


def allocate_lot_ids(conn: Connection, count: int) -> list[int]:
    if not count:
        return []
    new_ids = conn.execute(select(own_lot_ids.next_value()).select_from(func.generate_series(1, count)))
    return sorted(new_ids.scalars())


def preview_lot_ids(conn: Connection, count: int) -> list[int]:
    """Return the ids that new lots would get now; they are not taken."""
    if not count:
        return []
    row = conn.execute(text("SELECT last_value, is_called FROM unwind.own_lot_ids")).one()
    first = row.last_value + (1 if row.is_called else 0)
    return list(range(first, first + count))


def find_lots(conn: Connection, lot_ids: Iterable[int], *, lock: bool = False) -> dict[int, Lot]:
    lots = select(LotRow).where(is_any(LotRow.lot_id, set(lot_ids))).order_by(LotRow.lot_id)
    return {row.lot_id: lot_from_row(row) for row in conn.execute(lots.with_for_update() if lock else lots)}


def remove_sold_units(
    conn: Connection, lines: Sequence[Mapping[str, Any]], lots: Mapping[int, Lot], now: datetime
) -> None:
    """Take the units of new order lines out of locked lots.

    A sold-out lot moves to stockroom A when retained, else it is deleted. A reservation ends with its sale, since a lot
    in a stockroom cannot be reserved.
    """
    if not lines:
        return
    sold: Counter[int] = Counter()
    moves = []
    for line in lines:
        lot_id, units = line["lot_id"], line["quantity"]
        sold[lot_id] -= units
        of_line = {"order_id": line["order_id"], "line_no": line["line_no"]}
        moves.append(stock_move_row(lots[lot_id].key, lot_id, -units, "sold", now, **of_line))
    change_lot_quantities(conn, sold)
    sold_out = (is_any(LotRow.lot_id, sold), LotRow.quantity == 0)
    conn.execute(delete(LotRow).where(*sold_out, ~LotRow.is_retain))
    conn.execute(
        update(LotRow)
        .where(*sold_out, LotRow.is_retain, ~LotRow.is_stock_room)
        .values(is_stock_room=True, stock_room_id="A", auto_stockroom=True, reserved_for=None)
    )
    insert_rows(conn, StockMoveRow, moves)


def lock_recorded_lots(conn: Connection, lot_ids: Iterable[int], new_keys: Iterable[LotKey] = ()) -> dict[int, Lot]:
    """Lock the lots that the marketplace reports, with their items and `new_keys`, and return them as stored.

    Raises `Conflict` if a lot became another item meanwhile, so that the wrong item is locked.
    """
    ids = sorted(set(lot_ids))
    keys = {lot.key for lot in find_lots(conn, ids).values()} | set(new_keys)
    lock_item_keys(conn, keys)
    locked = find_lots(conn, ids, lock=True)
    if not {lot.key for lot in locked.values()} <= keys:
        raise Conflict("a lot became another item between the read and the locks")
    return locked


def upsert_lots(conn: Connection, reported: Sequence[tuple[Lot | None, Lot]], now: datetime) -> None:
    """Write reported lots as (before, after) in order; `before` is None for a new lot.

    A difference in quantity is journaled as a manual adjustment; a lot that became another item moves its units.
    """
    before = {lot.lot_id: before_lot for before_lot, lot in reversed(reported)}
    after = {lot.lot_id: lot for _, lot in reported}
    store_lots(conn, [(before[i], lot) for i, lot in after.items()])
    insert_rows(
        conn, StockMoveRow, [move for before_lot, lot in reported for move in _stock_moves(before_lot, lot, now)]
    )


def store_lots(conn: Connection, changes: Sequence[tuple[Lot | None, Lot]]) -> None:
    """Insert or update lots as (before, after); quantities of existing ones are added to, as they may be sold."""
    new = [lot for before, lot in changes if before is None]
    existing = [(before, lot) for before, lot in changes if before is not None]
    edited = [lot for before, lot in existing if replace(lot, quantity=before.quantity) != before]
    insert_rows(conn, LotRow, [_lot_to_row(lot) | {"quantity": lot.quantity} for lot in new])
    update_rows(conn, LotRow, ["lot_id"], [_lot_to_row(lot) for lot in edited])
    change_lot_quantities(conn, {lot.lot_id: lot.quantity - before.quantity for before, lot in existing})


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


def select_lots_of_items(keys: FromClause, *columns: Any) -> AnySelect:
    """Return a SELECT from the lots of these items, ordered by lot id; `keys` has the columns `KEY_COLUMNS`."""
    *always_set, completeness = KEY_COLUMNS
    conditions = (getattr(LotRow, name) == keys.c[name] for name in always_set)
    same_completeness = LotRow.completeness.is_not_distinct_from(keys.c[completeness])
    return select(*columns).where(*conditions, same_completeness).order_by(LotRow.lot_id)


def insert_item_locks(keys: FromClause) -> Insert:
    """Return the INSERT that locks items by the hash of their keys, ascending: a lot not made yet has no row to lock.

    An ON CONFLICT that changes nothing still locks the row, even one that another transaction has just committed.
    """
    *always_set, completeness = (keys.c[name] for name in KEY_COLUMNS)
    key = func.concat_ws(func.chr(31), *always_set, func.coalesce(completeness, ""))
    items = select(func.hashtextextended(key, 0).label("item")).distinct().order_by("item")
    locks = insert(ItemLockRow).from_select(["item"], items)
    return locks.on_conflict_do_update(index_elements=["item"], set_={"item": locks.excluded.item}, where=text("false"))


_GIVEN_KEYS = array_rows(**{name: getattr(LotRow, name) for name in KEY_COLUMNS})
_INSERT_ITEM_LOCKS = insert_item_locks(_GIVEN_KEYS)
_SELECT_LOTS_OF_ITEMS = select_lots_of_items(_GIVEN_KEYS, LotRow)
_LOCK_LOTS_OF_ITEMS = _SELECT_LOTS_OF_ITEMS.with_for_update(of=LotRow)


def lock_item_keys(conn: Connection, keys: Collection[LotKey]) -> None:
    conn.execute(_INSERT_ITEM_LOCKS, _key_arrays(keys))


def load_stock_view(conn: Connection, keys: Collection[LotKey], *, lock: bool = True) -> StockView:
    """Return all lots of these items, for planning.

    With `lock`, locks items and lots, so that two orders that need a new lot create one.
    """
    if not keys:
        return StockView()
    if lock:
        lock_item_keys(conn, keys)
    lots = conn.execute(_LOCK_LOTS_OF_ITEMS if lock else _SELECT_LOTS_OF_ITEMS, _key_arrays(keys))
    return StockView(map(lot_from_row, lots))


def stream_lots(conn: Connection, seller_id: str) -> Iterator[Lot]:
    """Yield a seller's lots through a server-side cursor; a store may have hundreds of thousands."""
    lots = select(LotRow).where(LotRow.seller_id == seller_id).order_by(LotRow.lot_id)
    for row in conn.execute(lots, execution_options={"stream_results": True, "yield_per": 1000}):
        yield lot_from_row(row)


def change_lot_quantities(conn: Connection, deltas: Mapping[int, int]) -> None:
    # Add signed differences, so that no concurrent sale is overwritten (R78).
    deltas = {lot_id: delta for lot_id, delta in deltas.items() if delta}
    if not deltas:
        return
    changed = conn.execute(_CHANGE_QUANTITIES, {"lot": list(deltas), "delta": list(deltas.values())})
    if changed.rowcount != len(deltas):
        raise LookupError(f"{len(deltas) - changed.rowcount} of {len(deltas)} lots do not exist. Lock them first.")


_DELTAS = array_rows(lot=LotRow.lot_id, delta=LotRow.quantity)
_CHANGE_QUANTITIES = (
    update(LotRow).where(LotRow.lot_id == _DELTAS.c.lot).values(quantity=LotRow.quantity + _DELTAS.c.delta)
)


def _key_arrays(keys: Collection[LotKey]) -> dict[str, list[Any]]:
    return {column: [getattr(key, column) for key in keys] for column in KEY_COLUMNS}
