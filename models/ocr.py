"""The table of cancel requests (OCR), of which an order has at most one open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from models.db.row_mapping import to_row
from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from models.db.selects import select_latest
from models.orders import PartChange, store_order_parts
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
        partial_index("uq_ocrs_one_open_per_order", "order_id", unique=True, where="state = 'open'"),
        partial_index("ix_ocrs_remind", "remind_at", "ocr_id", where="state = 'open' AND remind_at IS NOT NULL"),
        partial_index("ix_ocrs_agrees", "agrees_at", "ocr_id", where=OCR_AGREES_CONDITION),
        partial_index("ix_ocrs_declines", "declines_at", "ocr_id", where=OCR_DECLINES_CONDITION),
    )


LATEST_OCRS = select_latest(OcrRow.order_id, OcrRow.ocr_id)


def update_ocrs(conn: Connection, changed: Sequence[PartChange[Ocr]], terms_history: TermsHistory) -> None:
    def new_columns(ocr: Ocr) -> dict[str, Any]:
        remind_at = reminders.first_reminder_at(ocr.filed_at, ocr.terms.ocr_remind_after)
        return to_row(ocr, ("filed_by", "filed_at", "previous_status", "reason", "comment")) | {
            "terms_id": terms_history.ids[ocr.terms],
            "remind_at": remind_at if ocr.filed_by is Role.BUYER else None,
        }

    mutable = ("state", "agrees_at", "declines_at", "closed_at")
    store_order_parts(conn, OcrRow, "ocr_id", changed, mutable, new_columns)
