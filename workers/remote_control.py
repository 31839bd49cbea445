"""Refusal of Celery's remote control commands: workers answer inspections and obey nothing.

Every client that can write to Redis can send remote control messages, and Celery obeys them: `shutdown`, `revoke`
(which would drop a command without an answer), `cancel_consumer`, `time_limit` and more.  A supervisor starts and stops
workers here, so none of these is needed.  What remains are inspections (`celery inspect ping`, Flower's pages) and
`enable_events`, which Flower sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals
from celery.worker.control import Panel

ALLOWED_COMMANDS = frozenset({"enable_events", "heartbeat", "election"})
"""Commands that change only which events are sent; `election` is Celery's own, and without gossip nothing listens to
it."""
REMOVED_INSPECTIONS = frozenset({"objgraph", "memsample", "memdump"})
"""Inspections that write memory contents to files that the sender chooses."""


class Handlers(dict[str, Callable[..., Any]]):
    def __missing__(self, name: str) -> Callable[..., Any]:
        return answer_disabled


def answer_disabled(_state: Any, **_: Any) -> dict[str, str]:
    return {"error": "disabled: Unwind's workers obey no remote control; stop and start them with their supervisor"}


@signals.celeryd_init.connect
def disable_control_commands(**_: Any) -> None:
    for name, entry in Panel.meta.items():
        if (entry.type == "control" and name not in ALLOWED_COMMANDS) or name in REMOVED_INSPECTIONS:
            for registered in (name, entry.alias):
                Panel.data.pop(registered, None)
    Panel.data = Handlers(Panel.data)
