"""Is what we promise still true?  Each promise is a query that must come back empty; this task asks them all."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import structlog
from celery import shared_task

from models import invariants, month_audit, sweeps
from models.work import Work, unit_of_work
from tasks.sweeps import Effects

log = structlog.get_logger(__name__)

MONTHS = "audit.months"
MONTH_EVERY = timedelta(hours=1)
"""How often the books of one closed month are computed again: it reads every event of the month's orders."""


@shared_task(name="audit.check_invariants")
def check_invariants() -> Effects:
    """Ask every invariant; gives `{"violations": {sentence: [ids]}}` and logs each as an error."""
    work: Work[Any]
    with unit_of_work() as work:
        found = invariants.check(work.conn, work.now, months=_months_in_turn(work))
        sweeps.ran(work.conn, "audit.check_invariants", len(found), work.now)
    for violation in found:
        log.error("an invariant is violated", sentence=violation.sentence, ids=violation.ids[:20])
    return {"violations": {violation.sentence: violation.ids for violation in found}}


def _months_in_turn(work: Work[Any]) -> list[date]:
    """One closed month an hour: the newest and the older ones by turns, so that a month just closed is proven at once."""
    last = sweeps.last_runs(work.conn).get(MONTHS)
    if last is not None and work.now - last < MONTH_EVERY:
        return []
    closed = month_audit.closed_months(work.conn)
    if not closed:
        return []
    sweeps.ran(work.conn, MONTHS, 0, work.now)
    hour = int(work.now.timestamp()) // int(MONTH_EVERY.total_seconds())
    return [closed[-1]] if hour % 2 else [closed[hour // 2 % len(closed)]]
