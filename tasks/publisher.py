"""The interface through which the relay publishes outbox messages. Without a publisher nothing is published.

The publisher sends row ids only. The outbox row is the source of truth, so a message that is lost is published again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Publisher(Protocol):
    def publish(self, task: str, rows: Sequence[int]) -> None: ...

    def broker_epoch(self) -> str | None:
        """Return a text that changes when the broker may have lost messages; None if that is unknown."""
        ...


class _NullPublisher:
    # For processes without a broker: a simulation runs the tasks of the outbox itself.

    def publish(self, task: str, rows: Sequence[int]) -> None:
        pass

    def broker_epoch(self) -> str | None:
        return None


_publisher: Publisher = _NullPublisher()


def set_publisher(new_publisher: Publisher | None) -> None:
    global _publisher  # noqa: PLW0603 - there is one per process
    _publisher = new_publisher if new_publisher is not None else _NullPublisher()


def current_publisher() -> Publisher:
    return _publisher
