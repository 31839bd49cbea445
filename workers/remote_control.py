"""What may somebody tell a worker from afar?  Nothing: workers answer questions, and take no orders.

Whoever can write to Redis can send remote control messages, and Celery obeys: `shutdown`, `revoke` (a command would be dropped
without an answer), `cancel_consumer`, `time_limit` and more.  Supervisors start and end workers here, so nobody needs these.  What
is left are the questions (`celery inspect ping`, Flower's pages), and that events be sent, for which Flower asks.
"""

from __future__ import annotations

from typing import Any

from celery import signals

ALLOWED_COMMANDS = frozenset({"enable_events", "heartbeat", "election"})
"""Orders that change nothing but what is told; `election` is Celery's own, and without gossip nobody listens to it."""
REMOVED_INSPECTIONS = frozenset({"objgraph", "memsample", "memdump"})
"""Questions that write what is in memory to places of the asker's choice."""


@signals.celeryd_init.connect
def remove_control_commands(**_: Any) -> None:
    """Forget every order and those questions, before this worker listens."""
    from celery.worker.control import Panel

    for name, about in list(Panel.meta.items()):
        if (about.type == "control" and name not in ALLOWED_COMMANDS) or name in REMOVED_INSPECTIONS:
            for known in (name, about.alias):
                Panel.data.pop(known, None)
            Panel.meta.pop(name, None)
