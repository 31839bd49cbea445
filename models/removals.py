"""The table of item removal requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import int_array, is_any, is_any_of_ids
from models.db.bulk import insert_rows, update_rows
from models.db.pipeline import Fetch, execute
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from policies.removals import Removal, RemovalState
from policies.statuses import Role


class RemovalRow(Base):
    __tablename__ = "removals"

    removal_id: Mapped[BigIntKey]
    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"))
    requested_by: Mapped[str]
    state: Mapped[str]
    lines: Mapped[dict[str, Any]]
    return_items: Mapped[bool | None]
    requested_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]

    __table_args__ = (
        check_in("requested_by", (Role.BUYER, Role.SELLER)),
        check_in("state", RemovalState),
        CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided_when_not_pending"),
        Index("ix_removals_order_id", "order_id", "removal_id"),
        partial_index("ix_removals_pending", "order_id", where="state = 'pending'"),
    )


def load_removals_of_order(conn: Connection, order_id: int) -> list[Removal]:
    rows = conn.execute(select(RemovalRow).where(RemovalRow.order_id == order_id).order_by(RemovalRow.removal_id))
    return [removal_from_row(row) for row in rows]


def send_pending_counts_query(conn: Connection, order_ids: Iterable[int]) -> Fetch[dict[int, int]]:
    rows = execute(conn, _PENDING_REMOVAL_COUNTS, {"ids": int_array(sorted(order_ids))})
    return lambda: {row.order_id: row.pending for row in rows}


_PENDING_REMOVAL_COUNTS = (
    select(RemovalRow.order_id, func.count().label("pending"))
    .where(RemovalRow.state == "pending", is_any_of_ids(RemovalRow.order_id))
    .group_by(RemovalRow.order_id)
)


def load_removals(conn: Connection, removal_ids: Iterable[int]) -> dict[int, Removal]:
    rows = conn.execute(select(RemovalRow).where(RemovalRow.removal_id.in_(list(removal_ids))))
    return {row.removal_id: removal_from_row(row) for row in rows}


def removal_from_row(row: Any) -> Removal:
    return from_row(Removal, row, lines=tuple((line["line_no"], line["quantity"]) for line in row.lines))


def insert_removals(conn: Connection, requested: Sequence[Removal]) -> list[int]:
    rows = [
        to_row(r, ("order_id", "requested_by", "state", "return_items", "requested_at"))
        | {"lines": [{"line_no": line_no, "quantity": quantity} for line_no, quantity in r.lines]}
        for r in requested
    ]
    return insert_rows(conn, RemovalRow, rows, returning="removal_id")


def update_removals(conn: Connection, decided: Sequence[Removal]) -> None:
    columns = ("removal_id", "state", "return_items", "decided_at")
    update_rows(conn, RemovalRow, ["removal_id"], [to_row(removal, columns) for removal in decided])


def cancel_pending_removals(conn: Connection, order_ids: Sequence[int], now: datetime) -> dict[int, list[Removal]]:
    rows = conn.execute(
        update(RemovalRow)
        .where(is_any(RemovalRow.order_id, order_ids), RemovalRow.state == "pending")
        .values(state="cancelled", decided_at=now)
        .returning(RemovalRow)
    )
    removals_by_order: dict[int, list[Removal]] = {}
    for row in rows:
        removals_by_order.setdefault(row.order_id, []).append(removal_from_row(row))
    return removals_by_order
