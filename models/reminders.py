"""The sweep that sends reminders about open cancel requests and unlocked alerts.

`remind_at` is on the row it concerns. An alert also has `remind_from`, the start of its reminders: an acceptance or a
new lock restarts them, a response does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from models import terms
from models.alerts import AlertRow
from models.db.bulk import update_rows
from models.db.selects import AnySelect, next_due
from models.ocr import OcrRow
from models.orders import OrderRow
from models.sweeps import NEVER
from models.unit_of_work import UnitOfWork
from policies import reminders as policy
from policies.cases import AlertKind
from policies.verdicts import OutboxMessage

_DUE_OCR_REMINDERS = next_due(
    select(OcrRow, OrderRow.seller_id).join(OrderRow, OrderRow.order_id == OcrRow.order_id),
    OcrRow.remind_at,
    OcrRow.ocr_id,
    "state = 'open' AND filed_by = 'buyer'",
).with_for_update(key_share=True, skip_locked=True)
_DUE_ALERT_REMINDERS = next_due(
    select(
        AlertRow, case((AlertRow.kind == "NPB", OrderRow.seller_id), else_=OrderRow.buyer_id).label("filer_id")
    ).join(OrderRow, OrderRow.order_id == AlertRow.order_id),
    AlertRow.remind_at,
    AlertRow.alert_id,
    "state = 'open'",
).with_for_update(key_share=True, skip_locked=True)


class ReminderSweep:
    """Send due reminders in batches, those that have waited longest first. One instance makes one pass.

    Orders locked by a command are skipped until the next sweep.
    """

    def __init__(self) -> None:
        self._after_ocr: tuple[datetime, int] = (NEVER, 0)
        self._after_alert: tuple[datetime, int] = (NEVER, 0)

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        ocrs = self._ocrs(work, limit)
        alerts = self._alerts(work, limit - len(ocrs))
        if not ocrs and not alerts:
            return 0, 0
        terms_history = terms.load_terms(work.conn)
        messages = [*_remind_of_ocrs(work, terms_history, ocrs), *_remind_of_alerts(work, terms_history, alerts)]
        work.enqueue(messages)
        reminded = len(ocrs) + len(alerts)
        return reminded, reminded

    def committed(self) -> None:
        # A reminded row is not due again.
        ...

    def skip_next(self, work: UnitOfWork[Any]) -> str | None:
        for row in self._ocrs(work, 1):
            self._after_ocr = (row.remind_at, row.ocr_id)
            return f"ocr {row.ocr_id}"
        for row in self._alerts(work, 1):
            self._after_alert = (row.remind_at, row.alert_id)
            return f"alert {row.alert_id}"
        return None

    def _ocrs(self, work: UnitOfWork[Any], limit: int) -> Sequence[Row[Any]]:
        return _due_for_reminder(work, _DUE_OCR_REMINDERS, self._after_ocr, limit)

    def _alerts(self, work: UnitOfWork[Any], limit: int) -> Sequence[Row[Any]]:
        return _due_for_reminder(work, _DUE_ALERT_REMINDERS, self._after_alert, limit)


def _due_for_reminder(
    work: UnitOfWork[Any], statement: AnySelect, after: tuple[datetime, int], limit: int
) -> Sequence[Row[Any]]:
    if limit <= 0:
        return []
    where = {"now": work.now, "limit": limit, "after_at": after[0], "after_id": after[1]}
    return work.conn.execute(statement, where).all()


def _remind_of_ocrs(
    work: UnitOfWork[Any], terms_history: terms.TermsHistory, ocrs: Sequence[Row[Any]]
) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[dict[str, Any]] = []
    for r in ocrs:
        steps = terms_history.by_id(r.terms_id).ocr_remind_after
        step = policy.due_reminder_step(r.filed_at, steps, r.reminders, work.now)
        if step is not None:
            messages.append(
                policy.ocr_reminder(
                    r.order_id,
                    r.ocr_id,
                    r.seller_id,
                    r.filed_at,
                    r.reason,
                    step,
                    agrees_at=r.agrees_at,
                    declines_at=r.declines_at,
                )
            )
        schedules.append({"ocr_id": r.ocr_id} | _reminder_schedule(r.reminders, step))
    update_rows(work.conn, OcrRow, ["ocr_id"], schedules)
    return messages


def _remind_of_alerts(
    work: UnitOfWork[Any], terms_history: terms.TermsHistory, alerts: Sequence[Row[Any]]
) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[dict[str, Any]] = []
    for a in alerts:
        steps = terms_history.by_id(a.terms_id).unlock_remind_after
        step = policy.due_reminder_step(a.remind_from, steps, a.reminders, work.now)
        if step is not None:
            kind = AlertKind(a.kind)
            messages.append(
                policy.unlock_reminder(
                    a.order_id,
                    a.alert_id,
                    a.filer_id,
                    kind,
                    npx=a.penalty_stands,
                    since=a.remind_from,
                    step=step,
                    cancels_at=a.cancels_at,
                )
            )
        schedules.append({"alert_id": a.alert_id} | _reminder_schedule(a.reminders, step))
    update_rows(work.conn, AlertRow, ["alert_id"], schedules)
    return messages


def _reminder_schedule(reminders: int, step: policy.ReminderStep | None) -> dict[str, Any]:
    return {"reminders": step.number if step else reminders, "remind_at": step.next_at if step else None}


def next_reminder_at(conn: Connection) -> datetime | None:
    ocrs = select(func.min(OcrRow.remind_at)).where(OcrRow.state == "open", OcrRow.remind_at.is_not(None))
    alerts = select(func.min(AlertRow.remind_at)).where(AlertRow.state == "open", AlertRow.remind_at.is_not(None))
    return conn.execute(select(func.least(ocrs.scalar_subquery(), alerts.scalar_subquery()))).scalar()


def list_orders_after_last_reminder(conn: Connection) -> list[int]:
    reminded = (OcrRow.state == "open", OcrRow.filed_by == "buyer", OcrRow.reminders > 0, OcrRow.remind_at.is_(None))
    unanswered = select(OcrRow.order_id).where(*reminded).order_by(OcrRow.filed_at, OcrRow.ocr_id)
    return list(conn.execute(unanswered).scalars())
