"""The queue of each task. There are seven, so that no kind of work waits behind another.

Submissions by SQL have their own queue: a worker takes messages from its queues in turn, so their consumer waits for at
most one batch of `commands`. The relay has its own, too: every commit wakes it, and sweeps must not wait for that.
Audits read many rows: both of a minute together would keep two processes from the sweeps.
"""

from __future__ import annotations

QUEUES = ("commands", "submissions", "consequences", "notices", "outbox", "sweeps", "audits")

HEARTBEAT = "queues.heartbeat"
"""The only task that uses every queue: it shows that the queue is served."""

_INTERNAL_QUEUES = {
    "submissions.drain": "submissions",
    "npb.scan_open_alerts": "sweeps",
    "alerts.scan_seller_alerts": "sweeps",
    "reminders.scan": "sweeps",
    "automation.file_alerts": "sweeps",
    "automation.cancel": "sweeps",
    "automation.resolve_requests": "sweeps",
    "bills.issue": "sweeps",
    "outbox.relay": "outbox",
    "audit.check_invariants": "audits",
    "audit.check_everything": "audits",
    "removals.cancel_pending": "consequences",
    "credits.post_to_next_invoice": "consequences",
    "notices.tell_seller": "notices",
    "notices.tell_buyer": "notices",
    "notices.deliver": "notices",
    "webhooks.deliver": "notices",
}


def queue_of(task: str) -> str:
    return _INTERNAL_QUEUES.get(task, "commands")


def is_internal_task(task: str) -> bool:
    return task in _INTERNAL_QUEUES or task == HEARTBEAT
