"""The fee of an order, and fee credits: the fee of each cancelled order, traced to the bill that shows its credit."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, select

from models.db.row_mapping import map_row_to_json
from models.ddl.views import V_FEE_CREDIT
from models.ledger import LedgerLineRow
from policies.bills import format_month
from policies.cases import Order
from policies.credits import fee_credit_note
from policies.purchases import format_total

_CREDIT = V_FEE_CREDIT.as_table().c
_WHEN = func.coalesce(_CREDIT.cancelled_at, _CREDIT.posted_at)
_FEE_CREDITS = select(*(column for column in _CREDIT if column.name != "seller_id"))


def fee_of_order(conn: Connection, order: Order, *, until: datetime | None = None) -> dict[str, Any]:
    # `net` is the remaining cost of the order to its seller.
    lines = select(LedgerLineRow).where(LedgerLineRow.order_id == order.order_id, LedgerLineRow.kind != "payment")
    if until is not None:
        lines = lines.where(LedgerLineRow.at <= until)
    rows = conn.execute(lines.order_by(LedgerLineRow.line_id)).all()
    fee_lines = {row.kind: row for row in rows if row.kind in ("reset", "credit")}
    reset, credit = fee_lines.get("reset"), fee_lines.get("credit")
    return {
        "charged": format_total(order.fee),
        "charged_month": format_month(order.fee_month) if order.fee_month else None,
        "net": format_total(sum((row.amount for row in rows), Decimal(0))),
        "reset": format_total(reset.amount) if reset else None,
        "credit": format_total(credit.amount) if credit else None,
        "credit_month": format_month(credit.billing_month) if credit else None,
    }


def fee_credits_of_seller(conn: Connection, seller_id: str) -> list[dict[str, Any]]:
    rows = _FEE_CREDITS.where(_CREDIT.seller_id == seller_id).order_by(_WHEN, _CREDIT.order_id)
    return [_credit_json(row) for row in conn.execute(rows)]


def fee_credit_of_order(conn: Connection, order_id: int, *, until: datetime | None = None) -> list[dict[str, Any]]:
    """Return the credits of one order: one once it is cancelled, and any credit that staff gave for it.

    With `until`, as they were at that instant: a line written later was still pending, and its bill not issued.
    """
    rows = _FEE_CREDITS.where(_CREDIT.order_id == order_id).order_by(_WHEN)
    if until is not None:
        rows = rows.where(until >= _WHEN)
    return [_credit_json(row, until) for row in conn.execute(rows)]


def _credit_json(row: Any, until: datetime | None = None) -> dict[str, Any]:
    credit = map_row_to_json(row)
    if until is not None:
        if row.posted_at is not None and row.posted_at > until:
            credit |= {"state": "promised", "posted_at": None, "note": None}
        if row.bill_issued_at is not None and row.bill_issued_at > until:
            credit |= {"bill_issued_on": None, "bill_due_on": None}
    del credit["bill_issued_at"]
    return credit | {"where": fee_credit_note(credit)}
