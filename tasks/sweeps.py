"""How does a sweep go through everything that is due?  In batches, each its own transaction, until nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models import sweeps
from models.work import Work, unit_of_work

Effects = dict[str, Any]

BATCH = 5000
"""Rows of one transaction: 5,000 swept a million due alerts about as fast as one statement (speed.md)."""
MOST_BATCHES = 1000


def sweep(name: str, batch: Callable[[Work[Any], int], int], *, found: str, limit: int = BATCH) -> Effects:
    """Run `batch(work, limit)`, which gives how many rows it handled, until one comes back short; gives `{found: total}`."""
    total = 0
    for _ in range(MOST_BATCHES):
        work: Work[Any]
        with unit_of_work() as work:
            handled = batch(work, limit)
            total += handled
            if handled < limit:
                sweeps.ran(work.conn, name, total, work.now)
                break
    return {found: total}
