"""Is what we promise still true?  Each promise is a query that must come back empty; this task asks them all."""

from __future__ import annotations

from typing import Any

import structlog
from celery import shared_task

from models import invariants, sweeps
from models.work import Work, unit_of_work
from tasks.sweeps import Effects

log = structlog.get_logger(__name__)


@shared_task(name="audit.check_invariants")
def check_invariants() -> Effects:
    """Ask every invariant; gives `{"violations": {sentence: [ids]}}` and logs each as an error."""
    work: Work[Any]
    with unit_of_work() as work:
        found = invariants.check(work.conn, work.now)
        sweeps.ran(work.conn, "audit.check_invariants", len(found), work.now)
    for violation in found:
        log.error("an invariant is violated", sentence=violation.sentence, ids=violation.ids[:20])
    return {"violations": {violation.sentence: violation.ids for violation in found}}
