"""The journal of stock moves: per seller and item, recorded + returned - sold + adjusted = on hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from models.feed import WrittenIn
from policies.lots import LotKey


class StockMoveRow(Base):
    __tablename__ = "stock_moves"

    written_in: Mapped[WrittenIn] = mapped_column(primary_key=True)
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
    at: Mapped[datetime]

    __table_args__ = (
        check_in("kind", ("recorded", "sold", "returned", "adjusted")),
        CheckConstraint(
            "(kind IN ('sold', 'returned')) = (order_id IS NOT NULL AND line_no IS NOT NULL)", name="has_order_line"
        ),
        CheckConstraint(
            "CASE kind WHEN 'sold' THEN delta < 0 WHEN 'adjusted' THEN true ELSE delta >= 0 END", name="delta_sign"
        ),
        # At most one return per order line, and one per line of an approved removal (R79).
        partial_index("uq_stock_moves_sold", "order_id", "line_no", unique=True, where="kind = 'sold'"),
        partial_index(
            "uq_stock_moves_returned",
            "order_id",
            "line_no",
            unique=True,
            where="kind = 'returned' AND removal_id IS NULL",
        ),
        partial_index("uq_stock_moves_removed", "removal_id", "line_no", unique=True, where="removal_id IS NOT NULL"),
        # Only the audit reads by item. An index of the full key would be the journal's most expensive one.
        Index("ix_stock_moves_item", "seller_id", "item_no"),
    )


_NO_LINE = dict.fromkeys(("order_id", "line_no", "removal_id"))


def stock_move_row(key: LotKey, lot_id: int, delta: int, kind: str, at: datetime, **line: int | None) -> dict[str, Any]:
    """Return a move as a row; `line` has the order, the number and the removal of the line that it comes from."""
    return {**key._asdict(), "lot_id": lot_id, "delta": delta, "kind": kind, "at": at, **_NO_LINE, **line}
