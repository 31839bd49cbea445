"""How does a sweep go through everything that is due?  In batches, each its own transaction, until nothing is left.

A batch that fails is done again in ever smaller ones, until the row that cannot be handled stands alone; that one is passed
over, and the others get what they wait for (P8).  The next sweep tries it again; meanwhile log, audit and doctor tell of it.
"""

from __future__ import annotations

from typing import Any, Protocol

import structlog

from models import sweeps
from models.unit_of_work import UnitOfWork, unit_of_work

TaskResult = dict[str, Any]

log = structlog.get_logger(__name__)

BATCH_SIZE = 5000
"""Rows of one transaction: 5,000 swept a million due alerts about as fast as one statement (speed.md)."""
MAX_BATCHES = 1000
SPLIT_FACTOR = 8
"""By which a batch that failed is divided: five tries from 5,000 rows to one."""


class BatchProcessor(Protocol):
    """What goes through everything that is due, once."""

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """Look at no more than `limit` rows; gives at how many, and for how many of them something was done."""
        ...

    def committed(self) -> None:
        """What was handled last is durable: go on behind it."""
        ...

    def skip_next(self, work: UnitOfWork[Any]) -> int | str | None:
        """Go on behind the row that comes next, and say which it is; None when there is none."""
        ...


def sweep(name: str, batches: BatchProcessor, *, found: str, limit: int = BATCH_SIZE, noted: bool = True) -> TaskResult:
    """Batch after batch, until one looks at fewer rows than it might; gives `{found: total}` of those that were done.

    Not until one does less than it might: a row that another sweep did meanwhile is looked at for nothing, and more may follow.

    `noted`: that the sweep ran is noted with the last batch; else by the caller, whose sweep has more than this one pass.
    """
    total, size = 0, limit
    work: UnitOfWork[Any]
    for _ in range(MAX_BATCHES):
        try:
            with unit_of_work() as work:
                looked_at, done = batches(work, size)
                if noted and looked_at < size:
                    sweeps.record_run(work.conn, name, total + done, work.now)
        except Exception as error:
            if size > 1:
                size = max(1, size // SPLIT_FACTOR)
                continue
            with unit_of_work() as work:  # fails as well when it is the database that is in trouble
                row = batches.skip_next(work)
            if row is None:
                raise
            log.error("a row is passed over", sweep=name, row=row, error=type(error).__name__)
            size = limit
            continue
        batches.committed()
        total += done
        if looked_at < size:
            break
    return {found: total}
