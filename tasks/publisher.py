"""How does the relay say that something waits?  Through the bell the process was given; without one nobody is told.

A ring carries ids, never state: the row in the outbox is the truth, and a ring that gets lost is rung again (X6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Publisher(Protocol):
    """Tells the follower of a kind of promise which rows wait.  Raises when there is no way to tell it now."""

    def publish(self, task: str, rows: Sequence[int]) -> None:
        """Ring for these rows of the outbox."""
        ...

    def broker_epoch(self) -> str | None:
        """A text that is another one when rings may have been forgotten; None when nobody can tell."""
        ...


class _NobodyListens:
    """In a replay promises are kept by the simulation itself."""

    def publish(self, task: str, rows: Sequence[int]) -> None:
        """Nobody is told."""

    def broker_epoch(self) -> str | None:
        """There is nothing to forget."""
        return None


_bound: Publisher = _NobodyListens()


def set_publisher(bell: Publisher | None) -> None:
    """Let this process ring `bell`; None for nobody."""
    global _bound  # noqa: PLW0603 - one per process is the point
    _bound = bell if bell is not None else _NobodyListens()


def current_publisher() -> Publisher:
    """The bell of this process."""
    return _bound
