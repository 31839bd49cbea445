"""The deadlines of automation: finds the automatic acts that are due, and moves those of a seller's open cases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from models import members
from models.alerts import ALERT_CANCELS_CONDITION, ALERT_WARNS_CONDITION, AlertRow
from models.cases import lock_case_set
from models.db.bulk import update_rows
from models.db.selects import AnySelect, DueRow, earliest, next_due
from models.ocr import OCR_AGREES_CONDITION, OCR_DECLINES_CONDITION, OcrRow
from models.orders import OrderRow
from policies import automation as policy
from policies.statuses import ALERT_BLOCKING_STATUSES


# The statements of acts take no locks: the facts decide again under the locks.
def _due_act(row: type[AlertRow | OcrRow | OrderRow], id_: Any, at: Any, condition: str | None = None) -> AnySelect:
    return next_due(select(row.order_id), at, id_, condition)


DUE_CANCELLATIONS = (
    _due_act(AlertRow, AlertRow.alert_id, AlertRow.cancels_at, ALERT_CANCELS_CONDITION)
    .join(OrderRow, OrderRow.order_id == AlertRow.order_id)
    .add_columns(OrderRow.seller_id)
)
DUE_FILINGS = _due_act(OrderRow, OrderRow.order_id, OrderRow.files_npb_at)
DUE_AGREEMENTS = (
    _due_act(OcrRow, OcrRow.ocr_id, OcrRow.agrees_at, OCR_AGREES_CONDITION)
    .join(OrderRow, OrderRow.order_id == OcrRow.order_id)
    .add_columns(OrderRow.seller_id)
)
DUE_DECLINES = _due_act(OcrRow, OcrRow.ocr_id, OcrRow.declines_at, OCR_DECLINES_CONDITION)
DUE_WARNINGS = next_due(
    select(AlertRow.order_id, AlertRow.alert_id, AlertRow.cancels_at, AlertRow.penalty_stands, OrderRow.buyer_id).join(
        OrderRow, OrderRow.order_id == AlertRow.order_id
    ),
    AlertRow.cancels_at,
    AlertRow.alert_id,
    ALERT_WARNS_CONDITION,
).with_for_update(key_share=True, skip_locked=True)


_EARLIER_AUTOMATIC_FILINGS = text("""
    UPDATE unwind.orders AS o
    SET files_npb_at = LEAST(o.files_npb_at, GREATEST(
        CAST(:since AS timestamptz),
        o.order_date + CAST(:file_after AS interval),
        o.order_date + make_interval(hours => 24 * CAST(m.automation -> 'file_npb_after' ->> 'value' AS integer)),
        COALESCE(o.held_until, '-infinity')
    ))
    FROM unwind.members AS m
    WHERE m.member_id = o.seller_id AND o.files_npb_at > :since
""")


def mark_buyers_warned(conn: Connection, warnings: Sequence[DueRow]) -> None:
    rows = [{"order_id": row.order_id, "alert_id": row.alert_id, "warned_of": row.cancels_at} for row in warnings]
    update_rows(conn, AlertRow, ["order_id", "alert_id"], rows)


def update_automation_deadlines(conn: Connection, seller_id: str, now: datetime) -> None:
    """Move the deadlines of a seller's open cases to the facts of now.  Hold the lock of the seller's row."""
    unpaid = (OrderRow.payment_status == "None") & OrderRow.status.not_in(ALERT_BLOCKING_STATUSES)
    open_cases = select(OrderRow.order_id).where(
        OrderRow.seller_id == seller_id, OrderRow.status.in_(("NPB", "NPX", "OCR")) | unpaid
    )
    order_ids = conn.execute(open_cases).scalars().all()
    if order_ids:
        # The parties' rows come before orders in the order of locks, and the seller's is held; the buyers decide
        # nothing here but by their ids.
        lock_case_set(conn, order_ids, lock_members=members.NO_LOCK).update_deadlines(now)


def bring_automatic_filings_forward(conn: Connection, file_after: timedelta, since: datetime) -> None:
    """Let automatic filings come earlier where terms allow it that are in force from then on.

    What comes later under them is left to its sweep.
    """
    conn.execute(_EARLIER_AUTOMATIC_FILINGS, {"file_after": file_after, "since": since})


next_automatic_filing_at = earliest(OrderRow.files_npb_at)
next_automatic_cancellation_at = earliest(AlertRow.cancels_at, ALERT_CANCELS_CONDITION)
next_cancellation_warning_at = earliest(AlertRow.cancels_at - policy.WARN_BEFORE_CANCELLATION, ALERT_WARNS_CONDITION)
next_automatic_agreement_at = earliest(OcrRow.agrees_at, OCR_AGREES_CONDITION)
next_automatic_decline_at = earliest(OcrRow.declines_at, OCR_DECLINES_CONDITION)
