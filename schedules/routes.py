"""Through which queue does each task go?  Five queues, so that the right pool serves each and none waits behind another.

What came in by SQL has a queue of its own: a worker takes its queues in turn, so however many messages wait in `commands`, the
drain waits for one of them.
"""

from __future__ import annotations

QUEUES = ("commands", "submissions", "consequences", "notices", "sweeps")

HEARTBEAT_QUEUES = {f"canary.{queue}": queue for queue in QUEUES}
"""One through each queue, to see that somebody takes what goes through it (reliability X9)."""

_INTERNAL_QUEUES = {
    "submissions.drain": "submissions",
    "npb.scan_open_alerts": "sweeps",
    "alerts.scan_seller_alerts": "sweeps",
    "reminders.scan": "sweeps",
    "bills.issue": "sweeps",
    "outbox.relay": "sweeps",
    "audit.check_invariants": "sweeps",
    "audit.check_everything": "sweeps",
    "removals.cancel_pending": "consequences",
    "credits.post_to_next_invoice": "consequences",
    "notices.tell_seller": "notices",
    "notices.tell_buyer": "notices",
    "notices.deliver": "notices",
}


def queue_of(task: str) -> str:
    """The queue of a task by its wire name; whatever is not the house's own is a command."""
    return _INTERNAL_QUEUES.get(task) or HEARTBEAT_QUEUES.get(task, "commands")


def is_internal_task(task: str) -> bool:
    """Whether the house itself sends it, again and again; whatever else there is, is a command of somebody."""
    return task in _INTERNAL_QUEUES or task in HEARTBEAT_QUEUES


def outbox_consumers() -> tuple[str, ...]:
    """The tasks that keep what a commit promised."""
    return tuple(task for task, queue in _INTERNAL_QUEUES.items() if queue in ("consequences", "notices"))
