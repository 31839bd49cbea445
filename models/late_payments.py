"""Payments recorded after their order was cancelled (R107), guarded by the order's row lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, select
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import int_array
from models.db.pipeline import execute
from models.db.row_mapping import from_row
from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from models.db.selects import select_latest
from models.orders import PartChange, store_order_parts
from policies.cases import LatePayment
from policies.late_payments import SETTLEMENT_OVERDUE_AFTER
from policies.statuses import PaymentStatus


class LatePaymentRow(Base):
    __tablename__ = "late_payments"

    late_payment_id: Mapped[BigIntKey]
    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"))
    payment_status: Mapped[str]
    recorded_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    settled_by: Mapped[str | None]
    comment: Mapped[str | None]

    __table_args__ = (
        check_in("payment_status", [status for status in PaymentStatus if status is not PaymentStatus.NONE]),
        CheckConstraint("(settled_at IS NULL) = (settled_by IS NULL)", name="settled_by_somebody"),
        partial_index("uq_late_payments_one_open_per_order", "order_id", unique=True, where="settled_at IS NULL"),
        Index("ix_late_payments_order_id", "order_id", "late_payment_id"),
    )


_LATEST_LATE_PAYMENTS = select_latest(LatePaymentRow.order_id, LatePaymentRow.late_payment_id)


def load_latest_late_payments(conn: Connection, order_ids: Iterable[int]) -> dict[int, LatePayment]:
    ids = sorted(order_ids)
    rows = execute(conn, _LATEST_LATE_PAYMENTS, {"ids": int_array(ids)}) if ids else ()
    return {row.order_id: from_row(LatePayment, row) for row in rows}


def update_late_payments(conn: Connection, changed: Sequence[PartChange[LatePayment]]) -> None:
    columns = ("payment_status", "recorded_at", "settled_at", "settled_by", "comment")
    store_order_parts(conn, LatePaymentRow, "late_payment_id", changed, columns)


def list_overdue_late_payments(conn: Connection, now: datetime) -> list[int]:
    late = LatePaymentRow
    overdue = select(late.order_id).where(late.settled_at.is_(None), late.recorded_at <= now - SETTLEMENT_OVERDUE_AFTER)
    return list(conn.execute(overdue.order_by(late.recorded_at, late.order_id)).scalars())
