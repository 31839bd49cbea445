"""Take units out of lots, return them and record lots: many orders in a constant number of statements, under locks.

Lock order: a row of `item_locks` per item key, sorted (a lot that does not exist yet has no row to lock), then lots by
id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, text, update

from models import orders
from models.db.bulk import insert_rows, update_rows
from models.db.schema import is_any
from models.lots import (
    KEY_COLUMNS,
    LotRow,
    StockMoveRow,
    editable_columns,
    lot_from_row,
    lot_to_row,
    own_lot_ids,
    stock_move_row,
)
from models.sql import load_sql
from models.unit_of_work import StaleRead
from policies.lots import Lot, LotKey, LotSnapshot
from policies.returns import ReturningLine, ReturnPlan, StockView


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
    _change_quantities(conn, sold)
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

    Raises `StaleRead` if a lot became another item meanwhile, so that the wrong item is locked.
    """
    ids = sorted(set(lot_ids))
    keys = {lot.key for lot in find_lots(conn, ids).values()} | set(new_keys)
    lock_item_keys(conn, keys)
    locked = lock_lots(conn, ids)
    if not {lot.key for lot in locked.values()} <= keys:
        raise StaleRead
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
    _change_quantities(conn, {i: lot.quantity - before_lot.quantity for i, (before_lot, lot) in existing.items()})
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


def allocate_lot_ids(conn: Connection, count: int) -> list[int]:
    if not count:
        return []
    taken = conn.execute(select(own_lot_ids.next_value()).select_from(func.generate_series(1, count)))
    return sorted(taken.scalars())


def lines_to_return(lines: Iterable[Row[Any]], units: Mapping[int, int] | None = None) -> list[ReturningLine]:
    return [
        ReturningLine(
            line.line_no,
            line.quantity - line.removed - line.returned if units is None else units[line.line_no],
            LotSnapshot(line.snapshot),
        )
        for line in lines
        if units is None or line.line_no in units
    ]


def load_stock_view(conn: Connection, lines: Iterable[ReturningLine], *, lock: bool = True) -> StockView:
    """Return all lots that these lines could return to, for planning.

    With `lock`, locks items and lots in the module's lock order, so that two orders that need a new lot create one.
    """
    keys = list({line.item.key for line in lines})
    if not keys:
        return StockView()
    if lock:
        lock_item_keys(conn, keys)
    candidates = _LOCK_CANDIDATES if lock else _CANDIDATES
    return StockView(lot_from_row(row) for row in conn.execute(candidates, _key_arrays(keys)))


def apply_return(conn: Connection, plans: Sequence[ReturnPlan], now: datetime) -> list[ReturnPlan]:
    """Execute return plans in the order in which they were planned; return them with new lots numbered.

    Writes lots, the journal and, for cancellations (not removals), what each order line returned.
    """
    provisional_ids = _provisional_ids(plans)
    numbers = dict(zip(provisional_ids, allocate_lot_ids(conn, len(provisional_ids)), strict=True))
    numbered_plans = [_numbered(plan, numbers) for plan in plans]
    before: dict[int, Lot] = {}
    after: dict[int, Lot] = {}
    for plan in numbered_plans:
        for lot_id, lot in plan.before.items():
            before.setdefault(lot_id, lot)
        after |= plan.lots
    new_ids = set(numbers.values())
    insert_rows(conn, LotRow, [lot_to_row(lot) for lot_id, lot in after.items() if lot_id in new_ids])
    changed_lots = {lot_id: lot for lot_id, lot in after.items() if lot_id not in new_ids}
    _change_quantities(conn, {i: lot.quantity - before[i].quantity for i, lot in changed_lots.items()})
    edited_lots = [lot for i, lot in changed_lots.items() if replace(lot, quantity=before[i].quantity) != before[i]]
    update_rows(conn, LotRow, ["lot_id"], [editable_columns(lot) for lot in edited_lots])
    insert_rows(
        conn,
        StockMoveRow,
        [
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
        ],
    )
    orders.update_lines(
        conn,
        [
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
        ],
    )
    return numbered_plans


def preview_returns(conn: Connection, plans: Sequence[ReturnPlan]) -> list[ReturnPlan]:
    """Return the plans with the ids that new lots would get now, for a dry run; writes nothing."""
    provisional_ids = _provisional_ids(plans)
    if not provisional_ids:
        return list(plans)
    row = conn.execute(text("SELECT last_value, is_called FROM unwind.own_lot_ids")).one()
    first = row.last_value + (1 if row.is_called else 0)
    numbers = {lot_id: first + index for index, lot_id in enumerate(provisional_ids)}
    return [_numbered(plan, numbers) for plan in plans]


CANDIDATES = load_sql("candidate_lots")
_CANDIDATES, _LOCK_CANDIDATES = text(CANDIDATES), text(f"{CANDIDATES} FOR UPDATE OF l")
_LOCK_ITEMS = text(load_sql("lock_items"))


def lock_item_keys(conn: Connection, keys: Collection[LotKey]) -> None:
    conn.execute(_LOCK_ITEMS, _key_arrays(list(keys)))


def find_lots(conn: Connection, lot_ids: Iterable[int]) -> dict[int, Lot]:
    rows = conn.execute(select(LotRow).where(is_any(LotRow.lot_id, set(lot_ids))))
    return {row.lot_id: lot_from_row(row) for row in rows}


def find_lots_of_items(conn: Connection, keys: Collection[LotKey]) -> dict[LotKey, list[Lot]]:
    lots: dict[LotKey, list[Lot]] = {}
    for row in conn.execute(_CANDIDATES, _key_arrays(list(keys))) if keys else ():
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


def count_returned_units(conn: Connection, seller_id: str) -> dict[int, int]:
    returned = (StockMoveRow.seller_id == seller_id, StockMoveRow.kind == "returned")
    units = select(StockMoveRow.lot_id, func.sum(StockMoveRow.delta)).where(*returned).group_by(StockMoveRow.lot_id)
    return dict(conn.execute(units.order_by(StockMoveRow.lot_id)).all())


def _change_quantities(conn: Connection, deltas: Mapping[int, int]) -> None:
    # Add signed differences, so that no concurrent sale is overwritten (R78).
    deltas = {lot_id: delta for lot_id, delta in deltas.items() if delta}
    if not deltas:
        return
    changed = conn.execute(
        text(
            "UPDATE unwind.lots AS l SET quantity = l.quantity + v.delta "
            "FROM unnest(CAST(:ids AS bigint[]), CAST(:deltas AS integer[])) AS v (lot_id, delta) "
            "WHERE l.lot_id = v.lot_id"
        ),
        {"ids": list(deltas), "deltas": list(deltas.values())},
    )
    if changed.rowcount != len(deltas):
        raise LotMissing(f"{len(deltas) - changed.rowcount} of {len(deltas)} lots do not exist. Lock them first.")


class LotMissing(Exception):
    """A lot to change does not exist: it was not locked, which is a bug."""


def _provisional_ids(plans: Iterable[ReturnPlan]) -> list[int]:
    return sorted({lot_id for plan in plans for lot_id in plan.lots if lot_id < 0}, reverse=True)


def _numbered(plan: ReturnPlan, numbers: Mapping[int, int]) -> ReturnPlan:
    if not numbers:
        return plan

    def number(lot_id: int) -> int:
        return numbers.get(lot_id, lot_id)

    def renumber(lots_by_id: Mapping[int, Lot]) -> dict[int, Lot]:
        return {number(i): replace(lot, lot_id=number(i)) for i, lot in lots_by_id.items()}

    return replace(
        plan,
        lines=tuple(replace(x, lot_id=None if x.lot_id is None else number(x.lot_id)) for x in plan.lines),
        lots=renumber(plan.lots),
        before=renumber(plan.before),
        lots_to_review=frozenset(number(i) for i in plan.lots_to_review),
    )


def _key_arrays(keys: Sequence[LotKey]) -> dict[str, list[Any]]:
    return {column: [getattr(key, column) for key in keys] for column in KEY_COLUMNS}
