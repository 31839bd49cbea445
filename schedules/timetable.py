"""The timetable of periodic tasks: title, task, interval.

Every task is level-triggered: it handles whatever is due, however long ago it last ran, and concurrent runs are
harmless. So beat stores no state, runs everything when it starts, and skips ticks while enough of them wait in the
queue (`workers/beat.py`). Entries are intervals, not crontabs, so that no time zone or wall clock matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import Task

from schedules.routes import QUEUES, queue_of
from tasks import audit, automation, bills, notices, npb, outbox, queue_heartbeat, reminders, seller_alerts, webhooks


@dataclass(frozen=True, slots=True)
class Entry:
    title: str
    task: Task[Any, Any]
    every: timedelta
    full_pass_interval: timedelta | None = None
    """How often all its work is completed, if that takes many ticks; the doctor judges its runs by this."""
    through: str | None = None
    """The queue, if the task's own is not meant."""

    @property
    def name(self) -> str:
        return str(self.task.name)

    @property
    def queue(self) -> str:
        return self.through or queue_of(self.name)


TIMETABLE: tuple[Entry, ...] = (
    # A commit wakes the tasks of its rows; this finds rows whose wake-up was lost, or whose task failed.
    Entry("publish due outbox messages", outbox.relay, timedelta(seconds=2)),
    # R41: the interval is the longest that a seller waits after an alert is due.
    Entry("unlock due NPB alerts", npb.scan_open_alerts, timedelta(seconds=1)),
    Entry("unlock due NRS and NSS alerts", seller_alerts.scan_seller_alerts, timedelta(seconds=1)),
    # R115 counts days; a few seconds are soon enough.
    Entry("file due automatic alerts", automation.file_alerts, timedelta(seconds=5)),
    # R116: as for unlocks, a buyer who pays in time has paid before the sweep.
    Entry("make due automatic cancellations", automation.cancel_due_orders, timedelta(seconds=5)),
    # A request that is agreed to at once wakes the task (R117); this is for lost wake-ups, and for requests without an
    # answer, which R123 counts in days.
    Entry("answer due cancel requests", automation.resolve_requests, timedelta(seconds=5)),
    # A commit that records a notice wakes the task at once; this is for retries and lost wake-ups (R102).
    Entry("send due emails", notices.deliver_notices, timedelta(seconds=5)),
    Entry("send events to webhooks", webhooks.deliver_events, timedelta(seconds=2)),
    # N16 and N17 count days.
    Entry("send reminders of open cases", reminders.scan_reminders, timedelta(minutes=1)),
    # R86: bills are due on the 5th at 00:00 of the billing zone.
    Entry("issue missing bills", bills.issue_bills, timedelta(minutes=1)),
    Entry("check invariants of recent changes", audit.audit_recent_changes, timedelta(minutes=1)),
    Entry(
        "check invariants of everything, once a night",
        audit.audit_everything,
        timedelta(minutes=1),
        timedelta(days=1),
    ),
    # The watchdog (workers/monitoring/watchdog.py) stops a worker that misses three of these while messages wait.
    *(
        Entry(f"send a heartbeat through {queue}", queue_heartbeat.heartbeat, timedelta(seconds=15), through=queue)
        for queue in QUEUES
    ),
)
"""All but the entry of `workers.submissions.consumer`, whose task belongs to the workers."""
