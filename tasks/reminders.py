"""The sweep that sends reminders of open cases, each at most once."""

from __future__ import annotations

from celery import shared_task

from models import reminders
from tasks.sweeps import TaskResult, sweep


@shared_task(name="reminders.scan")
def scan_reminders() -> TaskResult:
    """Remind sellers of unanswered requests (N16) and filers of cancellations that are open to them (N17)."""
    return sweep("reminders.scan", reminders.ReminderSweep(), result_key="reminded")
