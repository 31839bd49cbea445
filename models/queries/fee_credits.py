"""Fee credits: the fee of each cancelled order, traced to the bill that shows its credit."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from policies.credits import describe_fee_credit
from policies.timestamps import format_optional_timestamp

_FEE_CREDIT_COLUMNS = (
    "SELECT order_id, basis, cancelled_at, kind, state, charged, charged_month, amount, bill_month, bill_issued_at, "
    "bill_issued_on, bill_due_on, posted_at, note FROM unwind.v_fee_credit "
)
_FEE_CREDITS_OF_SELLER = text(
    _FEE_CREDIT_COLUMNS + "WHERE seller_id = :seller ORDER BY coalesce(cancelled_at, posted_at), order_id"
)
_FEE_CREDIT_OF_ORDER = text(
    _FEE_CREDIT_COLUMNS + "WHERE order_id = :order "
    "AND (CAST(:until AS timestamptz) IS NULL OR coalesce(cancelled_at, posted_at) <= :until) "
    "ORDER BY coalesce(cancelled_at, posted_at)"
)


def fee_credits_of_seller(conn: Connection, seller_id: str) -> list[dict[str, Any]]:
    return [_credit_json(row) for row in conn.execute(_FEE_CREDITS_OF_SELLER, {"seller": seller_id})]


def fee_credit_of_order(conn: Connection, order_id: int, *, until: datetime | None = None) -> list[dict[str, Any]]:
    """Return the credits of one order: one once it is cancelled, and any credit that staff gave for it.

    With `until`, as they were at that instant: a line written later was still pending, and its bill not issued.
    """
    return [_credit_json(row, until) for row in conn.execute(_FEE_CREDIT_OF_ORDER, {"order": order_id, "until": until})]


def _credit_json(row: Any, until: datetime | None = None) -> dict[str, Any]:
    was_pending = until is not None and row.posted_at is not None and row.posted_at > until
    issued_later = until is not None and row.bill_issued_at is not None and row.bill_issued_at > until
    credit = {
        "order_id": row.order_id,
        "basis": row.basis,
        "cancelled_at": format_optional_timestamp(row.cancelled_at),
        "kind": row.kind,
        "state": "promised" if was_pending else row.state,
        "charged": row.charged,
        "charged_month": row.charged_month,
        "amount": row.amount,
        "bill_month": row.bill_month,
        "bill_issued_on": _fee_credit_day(row.bill_issued_on, issued_later),
        "bill_due_on": _fee_credit_day(row.bill_due_on, issued_later),
        "posted_at": None if was_pending else format_optional_timestamp(row.posted_at),
        "note": None if was_pending else row.note,
    }
    return credit | {"where": describe_fee_credit(credit)}


def _fee_credit_day(day: date | None, not_yet: bool) -> str | None:
    return None if day is None or not_yet else day.isoformat()
