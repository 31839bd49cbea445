"""The tables of drafts of returns and of their edited lines, guarded by the order's row lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, exists, select
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import is_any
from models.db.bulk import insert_rows, update_rows
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, check_in, partial_index
from models.db.selects import count_where
from models.events import EventRow
from policies.alerts import UNLOCK_EVENTS
from policies.consolidation import Choice, Choices, LineEdit
from policies.drafts import Draft, DraftState


class DraftRow(Base):
    __tablename__ = "drafts"

    draft_id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"))
    seller_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
    order_version: Mapped[int]
    state: Mapped[str]
    consolidate: Mapped[bool]
    choices: Mapped[dict[str, Any]]
    opened_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    verified_lines: Mapped[dict[str, Any]]
    used_at: Mapped[datetime | None]

    __table_args__ = (
        check_in("state", DraftState),
        CheckConstraint("(state = 'used') = (used_at IS NOT NULL)", name="used_at_when_used"),
        CheckConstraint("state = 'open' OR verified_at IS NOT NULL", name="verified_before_use"),
        Index("ix_drafts_order_id", "order_id"),
        # An order is cancelled once, so at most one of its drafts is used.
        partial_index("uq_drafts_used", "order_id", unique=True, where="state = 'used'"),
    )


class DraftLineRow(Base):
    __tablename__ = "draft_lines"

    draft_id: Mapped[str] = mapped_column(ForeignKey("unwind.drafts.draft_id"), primary_key=True)
    line_no: Mapped[int] = mapped_column(primary_key=True)
    deleted: Mapped[bool]
    quantity: Mapped[int | None]
    fields: Mapped[dict[str, Any]]

    __table_args__ = (CheckConstraint("quantity >= 0", name="quantity_not_negative"),)


def load_drafts(conn: Connection, draft_ids: Iterable[str]) -> dict[str, Draft]:
    """Return the drafts by id; unknown ids are absent. Lock their orders first."""
    ids = sorted(set(draft_ids))
    if not ids:
        return {}
    edits: dict[str, dict[int, LineEdit]] = {}
    lines = select(DraftLineRow).where(is_any(DraftLineRow.draft_id, ids))
    for line in conn.execute(lines.order_by(DraftLineRow.draft_id, DraftLineRow.line_no)):
        edits.setdefault(line.draft_id, {})[line.line_no] = LineEdit(line.deleted, line.quantity, line.fields)
    order_changed = exists().where(
        EventRow.order_id == DraftRow.order_id,
        EventRow.seq > DraftRow.order_version,
        EventRow.type.not_in(UNLOCK_EVENTS),
    )
    rows = conn.execute(select(DraftRow, order_changed.label("order_changed")).where(is_any(DraftRow.draft_id, ids)))
    return {row.draft_id: _draft_from_row(row, edits.get(row.draft_id, {})) for row in rows}


def count_drafts_by_order(conn: Connection, order_ids: Iterable[int]) -> dict[int, int]:
    return dict(conn.execute(count_where(is_any(DraftRow.order_id, order_ids), by=(DraftRow.order_id,))).all())


def insert_drafts(conn: Connection, opened: Sequence[Draft]) -> None:
    immutable = ("order_id", "seller_id", "order_version", "opened_at")
    insert_rows(conn, DraftRow, [_mutable_draft_columns(draft) | to_row(draft, immutable) for draft in opened])


def update_drafts(conn: Connection, changed: Sequence[Draft]) -> None:
    update_rows(conn, DraftRow, ["draft_id"], [_mutable_draft_columns(draft) for draft in changed])
    lines = [
        {
            "draft_id": draft.draft_id,
            "line_no": line_no,
            "deleted": edit.delete,
            "quantity": edit.quantity,
            "fields": dict(edit.fields),
        }
        for draft in changed
        for line_no, edit in draft.choices.edits.items()
    ]
    insert_rows(conn, DraftLineRow, [row | {"deleted": False, "quantity": None} for row in lines], skip_existing=True)
    update_rows(conn, DraftLineRow, ["draft_id", "line_no"], lines)


def mark_drafts_used(conn: Connection, draft_ids: Sequence[str], now: datetime) -> None:
    update_rows(conn, DraftRow, ["draft_id"], [{"draft_id": i, "state": "used", "used_at": now} for i in draft_ids])


def _draft_from_row(row: Any, edits: dict[int, LineEdit]) -> Draft:
    return from_row(
        Draft,
        row,
        choices=Choices(row.consolidate, {group: Choice(choice) for group, choice in row.choices.items()}, edits),
        verified_lines={int(line_no): fingerprint for line_no, fingerprint in row.verified_lines.items()},
    )


def _mutable_draft_columns(draft: Draft) -> dict[str, Any]:
    return to_row(draft, ("draft_id", "state", "verified_at")) | {
        "consolidate": draft.choices.consolidate,
        "choices": dict(draft.choices.values),
        "verified_lines": {str(line_no): fingerprint for line_no, fingerprint in draft.verified_lines.items()},
    }
