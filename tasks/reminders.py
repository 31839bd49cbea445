"""How are people reminded?  By looking, in sets, for what has waited long enough; a second look finds nothing (A13)."""

from __future__ import annotations

from celery import shared_task

from models import reminders
from tasks.sweeps import TaskResult, sweep


@shared_task(name="reminders.scan")
def scan() -> TaskResult:
    """Remind sellers of unanswered requests (N16) and filers of cancellations they could make (N17)."""
    return sweep("reminders.scan", reminders.ReminderSweep(), found="reminded")
