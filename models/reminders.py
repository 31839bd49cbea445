"""Selection of the open cancel requests and unlocked alerts that are due for a reminder, and their next reminders.

`remind_at` is on the row it concerns. An alert also has `remind_from`, the start of its reminders: an acceptance or a
new lock restarts them, a response does not.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, select

from models.alerts import AlertRow
from models.db.selects import earliest, next_due
from models.ocr import OcrRow
from models.orders import OrderRow

DUE_OCR_REMINDERS = next_due(
    select(OcrRow, OcrRow.filed_at.label("since"), OrderRow.seller_id).join(OrderRow),
    OcrRow.remind_at,
    OcrRow.ocr_id,
    "state = 'open' AND filed_by = 'buyer'",
).with_for_update(key_share=True, skip_locked=True)
DUE_ALERT_REMINDERS = next_due(
    select(
        AlertRow,
        AlertRow.remind_from.label("since"),
        case((AlertRow.kind == "NPB", OrderRow.seller_id), else_=OrderRow.buyer_id).label("filer_id"),
    ).join(OrderRow),
    AlertRow.remind_at,
    AlertRow.alert_id,
    "state = 'open'",
).with_for_update(key_share=True, skip_locked=True)


next_ocr_reminder_at = earliest(OcrRow.remind_at, "state = 'open' AND remind_at IS NOT NULL")
next_alert_reminder_at = earliest(AlertRow.remind_at, "state = 'open' AND remind_at IS NOT NULL")


def list_finally_reminded_orders(conn: Connection) -> list[int]:
    reminded = (OcrRow.state == "open", OcrRow.filed_by == "buyer", OcrRow.reminders > 0, OcrRow.remind_at.is_(None))
    unanswered = select(OcrRow.order_id).where(*reminded).order_by(OcrRow.filed_at, OcrRow.ocr_id)
    return list(conn.execute(unanswered).scalars())
