"""The loop of all sweeps: handle everything due in batches, each in its own transaction.

A failed batch is split until the row that fails is alone. The sweep skips and logs that row, and the next sweep tries
it again; meanwhile the audit and the doctor report it.
"""

from __future__ import annotations

from typing import Any, Protocol

import structlog

from models import sweeps
from models.unit_of_work import UnitOfWork, unit_of_work

TaskResult = dict[str, Any]

log = structlog.get_logger(__name__)

BATCH_SIZE = 5000
"""Rows of one transaction: 5,000 swept a million due alerts about as fast as one statement (docs/speed.md)."""
MAX_BATCHES = 1000
SPLIT_FACTOR = 8
"""A failed batch is divided by this: five attempts from 5,000 rows to one."""


class BatchProcessor(Protocol):
    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """Handle at most `limit` rows. Return how many were read, and how many of them were changed."""
        ...

    def committed(self) -> None: ...

    def skip_next(self, work: UnitOfWork[Any]) -> int | str | None: ...


def sweep(name: str, batches: BatchProcessor, *, limit: int = BATCH_SIZE, record: bool = True, found: int = 0) -> int:
    """Run batches until one reads fewer rows than its limit. Return the number of rows changed.

    The number of changed rows does not end the loop: rows changed by another sweep meanwhile are read in vain,
    and more may follow. With `record`, the last batch records the run, with what earlier passes of it `found`.
    """
    total, size = 0, limit
    for _ in range(MAX_BATCHES):
        try:
            with unit_of_work() as work:
                rows_read, rows_changed = batches(work, size)
                if record and rows_read < size:
                    sweeps.record_sweep_run(work.conn, name, found + total + rows_changed, work.now)
        except Exception as error:
            if size > 1:
                size = max(1, size // SPLIT_FACTOR)
                continue
            with unit_of_work() as work:  # fails too if the database is the problem
                row = batches.skip_next(work)
            if row is None:
                raise
            log.error("sweep_row_skipped", sweep=name, row=row, error=type(error).__name__)
            size = limit
            continue
        batches.committed()
        total += rows_changed
        if rows_read < size:
            break
    return total
