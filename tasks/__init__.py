"""The tasks, one noun per module: the commands, and the tasks started by beat and the outbox."""

from __future__ import annotations

import importlib

MODULES = (
    "members",
    "inventory",
    "orders",
    "bulk_cancellation",
    "cancellation",
    "options",
    "drafts",
    "removals",
    "ocr",
    "npb",
    "seller_alerts",
    "automation",
    "credits",
    "bills",
    "notices",
    "reminders",
    "terms",
    "outbox",
    "webhooks",
    "audit",
    "queue_heartbeat",
)
"""The modules with tasks, listed one by one, so that a new file beside them defines no wire names by accident."""


def import_all() -> None:
    for module in MODULES:
        importlib.import_module(f"tasks.{module}")
