"""Is what we promise still true?  Each promise is a query that must come back empty; these tasks ask them.

Every minute of what changed lately and of a slice of the rest; every night of everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from celery import shared_task

from models.integrity import audit
from models.integrity.invariants import Violation
from models.unit_of_work import UnitOfWork, unit_of_work
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

SLICES_PER_TICK = 5
"""Questions of everything in one tick: a night's sixty take a quarter of an hour and keep no worker for long."""


@shared_task(name="audit.check_invariants")
def check_invariants() -> TaskResult:
    """Ask what must hold of what changed lately; gives `{"violations": {sentence: [ids]}}` and logs each as an error."""
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        found = audit.check_recent(work.conn, work.now)
    return _said(found or ())


@shared_task(name="audit.check_everything")
def check_everything() -> TaskResult:
    """Once a night ask what must hold of everything, a portion a tick; the same answer."""
    broken: list[Violation] = []
    for _ in range(SLICES_PER_TICK):
        work: UnitOfWork[Any]
        with unit_of_work() as work:
            found = audit.check_next_slice(work.conn, work.now)
        if found is None:
            break
        broken.extend(found)
    return _said(broken)


def _said(found: Sequence[Violation]) -> TaskResult:
    for violation in found:
        log.error("an invariant is violated", sentence=violation.sentence, ids=violation.ids[:20])
    return {"violations": {violation.sentence: violation.ids for violation in found}}
