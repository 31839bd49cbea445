"""The table of cancel requests (OCR), of which an order has at most one open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import int_array
from models.db.bulk import insert_rows, update_rows
from models.db.pipeline import execute
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, BigIntKey, check_in
from models.db.selects import select_latest
from policies import reminders
from policies.cases import Ocr, OcrState
from policies.statuses import Role
from policies.terms import TermsHistory

OCR_AGREES_CONDITION = "state = 'open' AND agrees_at IS NOT NULL"
OCR_DECLINES_CONDITION = "state = 'open' AND declines_at IS NOT NULL"


class OcrRow(Base):
    __tablename__ = "ocrs"

    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"), primary_key=True)
    ocr_id: Mapped[BigIntKey]
    filed_by: Mapped[str]
    state: Mapped[str]
    terms_id: Mapped[int]
    reminders: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    filed_at: Mapped[datetime]
    remind_at: Mapped[datetime | None]
    agrees_at: Mapped[datetime | None]
    declines_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    previous_status: Mapped[str]
    reason: Mapped[str]
    comment: Mapped[str]

    __table_args__ = (
        check_in("filed_by", (Role.BUYER, Role.SELLER)),
        check_in("state", OcrState),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed_when_not_open"),
        Index("uq_ocrs_one_open_per_order", "order_id", unique=True, postgresql_where=text("state = 'open'")),
        Index(
            "ix_ocrs_remind", "remind_at", "ocr_id", postgresql_where=text("state = 'open' AND remind_at IS NOT NULL")
        ),
        Index("ix_ocrs_agrees", "agrees_at", "ocr_id", postgresql_where=text(OCR_AGREES_CONDITION)),
        Index("ix_ocrs_declines", "declines_at", "ocr_id", postgresql_where=text(OCR_DECLINES_CONDITION)),
    )


_LATEST_OCRS = select_latest(OcrRow.order_id, OcrRow.ocr_id)


def send_latest_ocrs_query(conn: Connection, order_ids: Iterable[int]) -> Callable[[TermsHistory], dict[int, Ocr]]:
    rows = execute(conn, _LATEST_OCRS, {"ids": int_array(sorted(order_ids))})
    return lambda terms_history: {r.order_id: ocr_from_row(r, terms_history) for r in rows}


def ocr_from_row(row: Any, terms_history: TermsHistory) -> Ocr:
    return from_row(Ocr, row, terms=terms_history.by_id(row.terms_id))


_MUTABLE_OCR_COLUMNS = ("state", "agrees_at", "declines_at", "closed_at")


def update_ocrs(conn: Connection, changed: Sequence[tuple[int, Ocr]], terms_history: TermsHistory) -> None:
    insert_rows(
        conn,
        OcrRow,
        [
            to_row(ocr, (*_MUTABLE_OCR_COLUMNS, "filed_by", "filed_at", "previous_status", "reason", "comment"))
            | {
                "order_id": order_id,
                "terms_id": terms_history.id_of(ocr.terms),
                "remind_at": reminders.first_reminder_at(ocr.filed_at, ocr.terms.ocr_remind_after)
                if ocr.filed_by is Role.BUYER
                else None,
            }
            for order_id, ocr in changed
            if ocr.ocr_id is None
        ],
    )
    update_rows(
        conn,
        OcrRow,
        ["order_id", "ocr_id"],
        [
            to_row(ocr, (*_MUTABLE_OCR_COLUMNS, "ocr_id")) | {"order_id": order_id}
            for order_id, ocr in changed
            if ocr.ocr_id is not None
        ],
    )
