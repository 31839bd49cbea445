"""The sweeps that send reminders of open cases, each at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any

from celery import shared_task

from models import reminders, terms
from models.alerts import AlertRow
from models.db.bulk import update_rows
from models.db.selects import AnySelect, DuePosition, DueRow, find_due
from models.ocr import OcrRow
from models.unit_of_work import UnitOfWork
from policies import reminders as policy
from policies.terms import Terms
from policies.verdicts import OutboxMessage
from tasks.sweeps import DueSweep, TaskResult, sweep


@dataclass(frozen=True)
class ReminderSweep(DueSweep[DueRow]):
    """Send due reminders in batches, those that have waited longest first.

    Orders locked by a command are skipped until the next sweep.
    """

    statement: AnySelect
    table: type[OcrRow | AlertRow]
    key: str
    steps: Callable[[Terms], Sequence[timedelta]]
    message: Callable[[DueRow, policy.ReminderStep], OutboxMessage]

    def find(self, work: UnitOfWork[Any], after: DuePosition, limit: int) -> Sequence[DueRow]:
        return find_due(work.conn, self.statement, work.now, after, limit)

    def handle(self, work: UnitOfWork[Any], rows: Sequence[DueRow]) -> int:
        terms_history = terms.load_terms(work.conn)
        messages: list[OutboxMessage] = []
        schedules: list[dict[str, Any]] = []
        for row in rows:
            steps = self.steps(terms_history.by_id[row.terms_id])
            step = policy.due_reminder_step(row.since, steps, row.reminders, work.now)
            if step is not None:
                messages.append(self.message(row, step))
            sent, next_at = (step.number, step.next_at) if step else (row.reminders, None)
            schedules.append({"order_id": row.order_id, self.key: row.id, "reminders": sent, "remind_at": next_at})
        update_rows(work.conn, self.table, ["order_id", self.key], schedules)
        work.enqueue(messages)
        return len(rows)

    def skip(self, row: DueRow) -> str:
        return f"{self.key.removesuffix('_id')} {row.id}"


OCR_REMINDERS = ReminderSweep(
    reminders.DUE_OCR_REMINDERS, OcrRow, "ocr_id", attrgetter("ocr_remind_after"), policy.remind_of_ocr
)
ALERT_REMINDERS = ReminderSweep(
    reminders.DUE_ALERT_REMINDERS, AlertRow, "alert_id", attrgetter("unlock_remind_after"), policy.remind_of_unlock
)


@shared_task(name="reminders.scan")
def scan_reminders() -> TaskResult:
    """Remind sellers of unanswered requests (N16) and filers of cancellations that are open to them (N17)."""
    sellers = sweep("reminders.scan", OCR_REMINDERS, record=False)
    return {"reminded": sellers + sweep("reminders.scan", ALERT_REMINDERS, found=sellers)}
