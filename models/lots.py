"""The table of lots, and the append-only journal of every change of their units.

Per seller and item key, recorded + returned - sold + adjusted = on hand.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Connection,
    ForeignKey,
    Index,
    Sequence,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.db.row_mapping import from_row, to_row
from models.db.schema import (
    Base,
    BigInt,
    BigIntKey,
    Price,
    check_finite,
    check_in,
    metadata,
)
from models.feed import WrittenIn
from policies.lots import COMPLETENESS, CONDITIONS, FIRST_UNWIND_LOT_ID, STOCKROOMS, Lot, LotKey

KEY_COLUMNS = ("seller_id", "item_type", "item_no", "color_id", "new_or_used", "completeness")


class LotRow(Base):
    __tablename__ = "lots"

    lot_id: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    seller_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
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
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        # the type holds 2^31 - 1 and no more
        CheckConstraint("unit_price > 0", name="price_above_zero"),
        CheckConstraint("my_cost >= 0", name="cost_not_negative"),
        CheckConstraint("my_weight >= 0", name="weight_not_negative"),
        CheckConstraint("sale_rate BETWEEN 0 AND 99", name="sale_rate_below_100"),
        CheckConstraint("bulk >= 1", name="bulk_at_least_one"),
        CheckConstraint("stock_room_id IS NULL OR is_stock_room", name="stock_room_id_only_in_stockroom"),
        CheckConstraint("is_stock_room OR NOT auto_stockroom", name="auto_stockroom_only_in_stockroom"),
        CheckConstraint("reserved_for IS NULL OR NOT is_stock_room", name="reserved_not_in_stockroom"),
        *(
            CheckConstraint(f"(tier_quantity{n} IS NULL) = (tier_price{n} IS NULL)", name=f"tier{n}_complete")
            for n in (1, 2, 3)
        ),
        CheckConstraint(
            "tier_quantity1 > 0 AND tier_price1 > 0 AND tier_price1 < unit_price", name="tier1_below_unit_price"
        ),
        *(
            CheckConstraint(
                f"tier_quantity{n} IS NULL OR (tier_quantity{n - 1} IS NOT NULL "
                f"AND tier_quantity{n} > tier_quantity{n - 1} "
                f"AND tier_price{n} > 0 AND tier_price{n} < tier_price{n - 1})",
                name=f"tier{n}_more_units_lower_price",
            )
            for n in (2, 3)
        ),
        Index("ix_lots_key", *KEY_COLUMNS),
    )


own_lot_ids = Sequence("own_lot_ids", start=FIRST_UNWIND_LOT_ID, minvalue=FIRST_UNWIND_LOT_ID, metadata=metadata)


class StockMoveRow(Base):
    __tablename__ = "stock_moves"

    move_id: Mapped[BigIntKey]
    seller_id: Mapped[str]
    item_type: Mapped[str]
    item_no: Mapped[str]
    color_id: Mapped[int]
    new_or_used: Mapped[str]
    completeness: Mapped[str | None]
    lot_id: Mapped[BigInt]
    delta: Mapped[int]
    kind: Mapped[str]
    order_id: Mapped[BigInt | None]
    line_no: Mapped[int | None]
    removal_id: Mapped[BigInt | None]
    written_in: Mapped[WrittenIn]
    at: Mapped[datetime]

    __table_args__ = (
        Index("ix_stock_moves_written_in", "written_in", "move_id"),
        check_in("kind", ("recorded", "sold", "returned", "adjusted")),
        CheckConstraint(
            "(kind IN ('sold', 'returned')) = (order_id IS NOT NULL AND line_no IS NOT NULL)", name="has_order_line"
        ),
        CheckConstraint(
            "CASE kind WHEN 'sold' THEN delta < 0 WHEN 'adjusted' THEN true ELSE delta >= 0 END", name="delta_sign"
        ),
        # At most one return per order line, and one per line of an approved removal (R79).
        Index("uq_stock_moves_sold", "order_id", "line_no", unique=True, postgresql_where=text("kind = 'sold'")),
        Index(
            "uq_stock_moves_returned",
            "order_id",
            "line_no",
            unique=True,
            postgresql_where=text("kind = 'returned' AND removal_id IS NULL"),
        ),
        Index(
            "uq_stock_moves_removed",
            "removal_id",
            "line_no",
            unique=True,
            postgresql_where=text("removal_id IS NOT NULL"),
        ),
        # Only the audit reads by item. An index of the full key would be the journal's most expensive one.
        Index("ix_stock_moves_item", "seller_id", "item_no"),
    )


def lot_from_row(row: Any) -> Lot:
    tiers = [(getattr(row, f"tier_quantity{n}"), getattr(row, f"tier_price{n}")) for n in (1, 2, 3)]
    return from_row(Lot, row, tiers=tuple(tier for tier in tiers if tier[0] is not None))


def lot_to_row(lot: Lot) -> dict[str, Any]:
    return editable_columns(lot) | to_row(lot, (*KEY_COLUMNS, "quantity", "bind_id"))


_EDITABLE_LOT_COLUMNS = (
    "lot_id", "unit_price", "description", "remarks", "bulk", "is_retain", "is_stock_room", "stock_room_id",
    "auto_stockroom", "my_cost", "my_weight", "sale_rate", "reserved_for",
)  # fmt: skip


def editable_columns(lot: Lot) -> dict[str, Any]:
    tiers = [*lot.tiers, (None, None), (None, None), (None, None)][:3]
    return {
        **to_row(lot, _EDITABLE_LOT_COLUMNS),
        **{f"tier_quantity{n}": quantity for n, (quantity, _) in enumerate(tiers, start=1)},
        **{f"tier_price{n}": price for n, (_, price) in enumerate(tiers, start=1)},
    }


def stock_move_row(
    key: LotKey,
    lot_id: int,
    delta: int,
    kind: str,
    at: datetime,
    *,
    order_id: int | None = None,
    line_no: int | None = None,
    removal_id: int | None = None,
) -> dict[str, Any]:
    return dict(zip(KEY_COLUMNS, key, strict=True)) | {
        "lot_id": lot_id,
        "delta": delta,
        "kind": kind,
        "order_id": order_id,
        "line_no": line_no,
        "removal_id": removal_id,
        "at": at,
    }


def allocate_lot_ids(conn: Connection, count: int) -> list[int]:
    if not count:
        return []
    new_ids = conn.execute(select(own_lot_ids.next_value()).select_from(func.generate_series(1, count)))
    return sorted(new_ids.scalars())


def count_returned_units(conn: Connection, seller_id: str) -> dict[int, int]:
    returned = (StockMoveRow.seller_id == seller_id, StockMoveRow.kind == "returned")
    units = select(StockMoveRow.lot_id, func.sum(StockMoveRow.delta)).where(*returned).group_by(StockMoveRow.lot_id)
    return dict(conn.execute(units.order_by(StockMoveRow.lot_id)).all())
