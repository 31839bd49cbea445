"""The sweep that sends reminders of open cases, each at most once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import shared_task

from models import reminders, terms
from models.db.selects import BEFORE_ALL_DUE, DuePosition, DueRow
from models.unit_of_work import UnitOfWork
from policies import reminders as policy
from policies.cases import AlertKind
from policies.terms import TermsHistory
from policies.verdicts import OutboxMessage
from tasks.sweeps import TaskResult, sweep


@shared_task(name="reminders.scan")
def scan_reminders() -> TaskResult:
    """Remind sellers of unanswered requests (N16) and filers of cancellations that are open to them (N17)."""
    return {"reminded": sweep("reminders.scan", ReminderSweep())}


class ReminderSweep:
    """Send due reminders in batches, those that have waited longest first. One instance makes one pass.

    Orders locked by a command are skipped until the next sweep.
    """

    def __init__(self) -> None:
        self._after_ocr: DuePosition = BEFORE_ALL_DUE
        self._after_alert: DuePosition = BEFORE_ALL_DUE

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        ocrs = self._ocrs(work, limit)
        alerts = self._alerts(work, limit - len(ocrs))
        if not ocrs and not alerts:
            return 0, 0
        terms_history = terms.load_terms(work.conn)
        messages = [
            *_send_ocr_reminders(work, terms_history, ocrs),
            *_send_alert_reminders(work, terms_history, alerts),
        ]
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

    def _ocrs(self, work: UnitOfWork[Any], limit: int) -> Sequence[DueRow]:
        return reminders.lock_due_reminders(work.conn, reminders.DUE_OCR_REMINDERS, work.now, self._after_ocr, limit)

    def _alerts(self, work: UnitOfWork[Any], limit: int) -> Sequence[DueRow]:
        return reminders.lock_due_reminders(
            work.conn, reminders.DUE_ALERT_REMINDERS, work.now, self._after_alert, limit
        )


def _send_ocr_reminders(
    work: UnitOfWork[Any], terms_history: TermsHistory, ocrs: Sequence[DueRow]
) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[dict[str, Any]] = []
    for r in ocrs:
        steps = terms_history.by_id(r.terms_id).ocr_remind_after
        step = policy.due_reminder_step(r.filed_at, steps, r.reminders, work.now)
        if step is not None:
            messages.append(
                policy.ocr_reminder_message(
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
        schedules.append({"order_id": r.order_id, "ocr_id": r.ocr_id} | _reminder_schedule(r.reminders, step))
    reminders.update_ocr_reminders(work.conn, schedules)
    return messages


def _send_alert_reminders(
    work: UnitOfWork[Any], terms_history: TermsHistory, alerts: Sequence[DueRow]
) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[dict[str, Any]] = []
    for a in alerts:
        steps = terms_history.by_id(a.terms_id).unlock_remind_after
        step = policy.due_reminder_step(a.remind_from, steps, a.reminders, work.now)
        if step is not None:
            kind = AlertKind(a.kind)
            messages.append(
                policy.unlock_reminder_message(
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
        schedules.append({"order_id": a.order_id, "alert_id": a.alert_id} | _reminder_schedule(a.reminders, step))
    reminders.update_alert_reminders(work.conn, schedules)
    return messages


def _reminder_schedule(sent: int, step: policy.ReminderStep | None) -> dict[str, Any]:
    return {"reminders": step.number if step else sent, "remind_at": step.next_at if step else None}
