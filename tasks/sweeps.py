"""The loop of all sweeps: handle everything due in batches, each in its own transaction.

A failed batch is split until the row that fails is alone. The sweep skips and logs that row, and the next sweep tries
it again; meanwhile the audit and the doctor report it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import structlog

from models import sweeps
from models.db.selects import BEFORE_ALL_DUE
from models.unit_of_work import UnitOfWork, unit_of_work

TaskResult = dict[str, Any]

log = structlog.get_logger(__name__)

BATCH_SIZE = 5000
"""Rows of one transaction: 5,000 swept a million due alerts about as fast as one statement (docs/speed.md)."""
MAX_BATCHES = 1000
SPLIT_FACTOR = 8
"""A failed batch is divided by this: five attempts from 5,000 rows to one."""


RowT = TypeVar("RowT")


class DueSweep(Generic[RowT]):
    """What a sweep does with the rows that are due, in order of their deadlines unless `position` says otherwise."""

    start: ClassVar[Any] = BEFORE_ALL_DUE
    skips_failing: ClassVar[bool] = True
    """Whether a row that fails is passed over; else the sweep ends with its error."""

    def find(self, work: UnitOfWork[Any], after: Any, limit: int) -> Sequence[RowT]:
        """Return the first rows after a position."""
        raise NotImplementedError

    def handle(self, work: UnitOfWork[Any], rows: Sequence[RowT]) -> int:
        """Handle rows that were found and return how many were changed."""
        raise NotImplementedError

    def handle_batch(self, work: UnitOfWork[Any], after: Any, limit: int) -> tuple[int, int, Any]:
        """Return how many rows were read, how many of them were changed, and the position of the last one."""
        rows = self.find(work, after, limit)
        return (len(rows), self.handle(work, rows), self.position(rows[-1])) if rows else (0, 0, after)

    def position(self, row: Any) -> Any:
        return row.at, row.id

    def skip(self, row: Any) -> int | str:
        """Return the name of a row that fails, for the log."""
        return int(row.order_id)


def sweep(name: str, due: DueSweep[Any], *, limit: int = BATCH_SIZE, record: bool = True, found: int = 0) -> int:
    """Run batches until one reads fewer rows than its limit. Return the number of rows changed.

    The number of changed rows does not end the loop: rows changed by another sweep meanwhile are read in vain,
    and more may follow. With `record`, the last batch records the run, with what earlier passes of it `found`.
    """
    total, size, after = 0, limit, due.start
    for _ in range(MAX_BATCHES):
        try:
            with unit_of_work() as work:
                rows_read, rows_changed, last = due.handle_batch(work, after, size)
                if record and rows_read < size:
                    sweeps.record_sweep_run(work.conn, name, found + total + rows_changed, work.now)
        except Exception as error:
            if size > 1:
                size = max(1, size // SPLIT_FACTOR)
                continue
            with unit_of_work() as work:  # fails too if the database is the problem
                failing = due.find(work, after, 1)
            if not failing or not due.skips_failing:
                raise
            after = due.position(failing[0])
            log.error("sweep_row_skipped", sweep=name, row=due.skip(failing[0]), error=type(error).__name__)
            size = limit
            continue
        after = last
        total += rows_changed
        if rows_read < size:
            break
    return total
