"""The tables of orders and of their lines: the statements that select, lock, insert and update their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, Row, column, exists, select, table
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import int_array, is_any_of_ids
from models.db.bulk import insert_rows, update_changed_columns, update_rows
from models.db.pipeline import Fetch, execute
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, Cents, Price, Rate, Total, check_finite, check_in, partial_index
from models.db.selects import AnySelect
from policies.cases import Alert, Order
from policies.lots import LotSnapshot
from policies.returns import ReturningLine
from policies.statuses import CancelBasis, PaymentStatus, Status
from policies.terms import TermsHistory


class OrderRow(Base):
    __tablename__ = "orders"

    order_id: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)
    buyer_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
    seller_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
    status: Mapped[str]
    previous_status: Mapped[str | None]
    payment_status: Mapped[str]
    submitted_at: Mapped[datetime]
    order_date: Mapped[datetime]
    currency: Mapped[str]
    usd_rate: Mapped[Decimal] = mapped_column(Rate)
    total: Mapped[Decimal] = mapped_column(Total)
    credit: Mapped[Decimal] = mapped_column(Total, server_default="0")
    coupon: Mapped[Decimal] = mapped_column(Total, server_default="0")
    fee: Mapped[Decimal] = mapped_column(Cents)
    fee_month: Mapped[date | None]
    cancelled_at: Mapped[datetime | None]
    basis: Mapped[str | None]
    cancelled_by: Mapped[str | None]
    npb_filed_at: Mapped[datetime | None]
    files_npb_at: Mapped[datetime | None]
    held_at: Mapped[datetime | None]
    held_until: Mapped[datetime | None]
    version: Mapped[int]
    """The number of its last event. An unlock after it is counted by `alerts.unlock_seq`."""
    last_event_at: Mapped[datetime]

    __table_args__ = (
        check_in("status", Status),
        check_in("payment_status", PaymentStatus),
        check_in("basis", CancelBasis),
        *(check_finite(name) for name in ("total", "credit", "coupon", "fee")),
        CheckConstraint("buyer_id <> seller_id", name="buyer_is_not_seller"),
        CheckConstraint("total >= 0 AND fee >= 0 AND credit >= 0 AND coupon >= 0", name="not_negative"),
        CheckConstraint(
            "(status = 'CANCELLED') = (cancelled_at IS NOT NULL AND basis IS NOT NULL AND cancelled_by IS NOT NULL)",
            name="cancellation_complete",
        ),
        CheckConstraint("extract(day FROM fee_month) = 1", name="fee_month_is_a_month"),
        CheckConstraint("held_until > held_at", name="held_until_later"),
        partial_index("ix_orders_buyer_npb", "buyer_id", "seller_id", where="status = 'NPB'"),
        Index("ix_orders_seller_id", "seller_id"),
        partial_index("ix_orders_files_npb", "files_npb_at", "order_id", where="files_npb_at IS NOT NULL"),
    )


class OrderLineRow(Base):
    __tablename__ = "order_lines"

    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"), primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    batch_no: Mapped[int]
    lot_id: Mapped[BigInt]
    quantity: Mapped[int]
    removed: Mapped[int] = mapped_column(server_default="0")
    returned: Mapped[int] = mapped_column(server_default="0")
    returned_to_lot: Mapped[BigInt | None]
    note: Mapped[str | None]
    unit_price: Mapped[Decimal] = mapped_column(Price)
    snapshot: Mapped[dict[str, Any]]

    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint("removed >= 0 AND returned >= 0 AND removed + returned <= quantity", name="units_conserved"),
        check_finite("unit_price"),
    )


T = TypeVar("T")
PartChange = tuple[int, T | None, T]
"""An order's id with its alert, request or late payment before and after."""


@dataclass(frozen=True, slots=True)
class OrderParties:
    """(buyer, seller) by order, which never change, and whether an alert was open on any of the orders."""

    by_order: dict[int, tuple[str, str]] = field(default_factory=dict)
    accused: bool = False


_ALERTS = table("alerts", column("order_id"), column("state"), schema="unwind").c
_HAS_OPEN_ALERT = exists().where(_ALERTS.order_id == OrderRow.order_id, _ALERTS.state == "open").label("accused")
_SELECT_ORDER_PARTIES = select(OrderRow.order_id, OrderRow.buyer_id, OrderRow.seller_id, _HAS_OPEN_ALERT).where(
    is_any_of_ids(OrderRow.order_id)
)


def send_order_parties_query(conn: Connection, order_ids: Iterable[int]) -> Fetch[OrderParties]:
    cursor = execute(conn, _SELECT_ORDER_PARTIES, {"ids": int_array(sorted(set(order_ids)))})

    def fetch() -> OrderParties:
        rows = cursor.fetchall()
        return OrderParties({r.order_id: (r.buyer_id, r.seller_id) for r in rows}, any(r.accused for r in rows))

    return fetch


_SELECT_ORDER_ROWS = select(OrderRow).where(is_any_of_ids(OrderRow.order_id)).order_by(OrderRow.order_id)
_LOCK_ORDER_ROWS = _SELECT_ORDER_ROWS.with_for_update(key_share=True)


def send_orders_query(
    conn: Connection, order_ids: Iterable[int], *, lock: bool
) -> Callable[[Mapping[int, Alert]], dict[int, Order]]:
    """Select the orders; the returned function takes their latest alerts, whose unlocks count as events of the orders.

    Read the alerts after the locks: an unlock locks its order and does not change it.
    """
    rows = execute(conn, _LOCK_ORDER_ROWS if lock else _SELECT_ORDER_ROWS, {"ids": int_array(sorted(order_ids))})
    return lambda alerts: {r.order_id: _order_from_row(r, alerts.get(r.order_id)) for r in rows}


def _order_from_row(row: Any, alert: Alert | None) -> Order:
    version = row.version if alert is None or alert.unlock_seq is None else max(row.version, alert.unlock_seq)
    return from_row(Order, row, version=version)


def insert_orders(conn: Connection, submitted: Sequence[Order]) -> None:
    rows = [to_row(order, _ORDER_COLUMNS) | {"submitted_at": order.order_date} for order in submitted]
    insert_rows(conn, OrderRow, rows)


def update_orders(conn: Connection, changes: Sequence[tuple[Order, Order]]) -> None:
    ids = [after.order_id for _, after in changes]
    update_changed_columns(conn, OrderRow, {"order_id": ids}, _MUTABLE_ORDER_COLUMNS, changes)


def update_orders_files_npb_at(conn: Connection, changed: Sequence[Order]) -> None:
    update_rows(conn, OrderRow, ["order_id"], [to_row(order, ("order_id", "files_npb_at")) for order in changed])


_ORDER_COLUMNS = tuple(field.name for field in fields(Order))
_IMMUTABLE_ORDER_COLUMNS = ("order_id", "buyer_id", "seller_id", "currency", "usd_rate", "credit", "coupon")
_MUTABLE_ORDER_COLUMNS = tuple(name for name in _ORDER_COLUMNS if name not in _IMMUTABLE_ORDER_COLUMNS)


def send_latest_parts_query(
    conn: Connection, latest: AnySelect, kind: type[T], order_ids: Iterable[int]
) -> Callable[[TermsHistory], dict[int, T]]:
    """Select the latest alerts or requests of the orders, with the terms under which they were filed."""
    rows = execute(conn, latest, {"ids": int_array(sorted(order_ids))})
    return lambda history: {r.order_id: from_row(kind, r, terms=history.by_id[r.terms_id]) for r in rows}


def store_order_parts(
    conn: Connection,
    table: type[Base],
    key: str,
    changed: Sequence[PartChange[Any]],
    columns: tuple[str, ...],
    new_columns: Callable[[Any], dict[str, Any]] = lambda _part: {},
) -> None:
    """Store alerts, requests or late payments by order: insert those without a key, with `new_columns` besides."""
    new = [(order_id, part) for order_id, _, part in changed if getattr(part, key) is None]
    insert_rows(conn, table, [to_row(part, columns) | {"order_id": o} | new_columns(part) for o, part in new])
    known = [(order_id, old, part) for order_id, old, part in changed if getattr(part, key) is not None]
    keys = {"order_id": [order_id for order_id, _, _ in known], key: [getattr(part, key) for _, _, part in known]}
    update_changed_columns(conn, table, keys, columns, [(old, part) for _, old, part in known])


def load_order_lines(conn: Connection, order_ids: Iterable[int]) -> dict[int, list[Row[Any]]]:
    lines: dict[int, list[Row[Any]]] = {order_id: [] for order_id in order_ids}
    rows = conn.execute(
        select(OrderLineRow)
        .where(OrderLineRow.order_id.in_(list(lines)))
        .order_by(OrderLineRow.order_id, OrderLineRow.line_no)
    )
    for row in rows:
        lines[row.order_id].append(row)
    return lines


def order_lines_to_return(lines: Iterable[Row[Any]], units: Mapping[int, int] | None = None) -> list[ReturningLine]:
    return [
        ReturningLine(
            line.line_no,
            line.quantity - line.removed - line.returned if units is None else units[line.line_no],
            LotSnapshot(line.snapshot),
        )
        for line in lines
        if units is None or line.line_no in units
    ]


def update_order_lines(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    update_rows(conn, OrderLineRow, ["order_id", "line_no"], rows)


def buyer_has_npb_order(conn: Connection, buyer_id: str, seller_id: str) -> bool:
    npb = exists().where(OrderRow.buyer_id == buyer_id, OrderRow.seller_id == seller_id, OrderRow.status == "NPB")
    return bool(conn.execute(select(npb)).scalar())
