"""Fee credits: the fee of each cancelled order, traced to the bill that shows its credit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from models.db.row_mapping import row_as_json
from policies.credits import describe_fee_credit

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
    credit = row_as_json(row)
    if until is not None:
        if row.posted_at is not None and row.posted_at > until:
            credit |= {"state": "promised", "posted_at": None, "note": None}
        if row.bill_issued_at is not None and row.bill_issued_at > until:
            credit |= {"bill_issued_on": None, "bill_due_on": None}
    del credit["bill_issued_at"]
    return credit | {"where": describe_fee_credit(credit)}
