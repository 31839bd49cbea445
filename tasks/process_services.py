"""What the tasks send through. The process that runs them sets it; in a simulation nothing leaves the machine.

The relay publishes the ids of outbox rows only. The row is the source of truth: a lost message is published again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.mailer import Mailer


class Publisher(Protocol):
    def publish(self, task: str, rows: Sequence[int]) -> None: ...

    def broker_epoch(self) -> str | None:
        """Return a text that changes when the broker may have lost messages; None if that is unknown."""
        ...


WebhookSender = Callable[[str, str, dict[str, Any]], None]
"""Sends one event to an endpoint, given its URL and secret. Raises `tasks.webhooks.WebhookRejected`."""


@dataclass
class ProcessServices:
    mailer: Mailer | None = None
    publisher: Publisher | None = None
    webhook_sender: WebhookSender | None = None


services = ProcessServices()
