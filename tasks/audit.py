"""Periodic checks of the invariants. Each invariant is a query that must return no rows.

Every minute covers recent changes and a slice of the rest; every night covers everything.
"""

from __future__ import annotations

import structlog
from celery import shared_task

from models.integrity import violation_log
from models.integrity.invariants import Violations
from models.unit_of_work import unit_of_work
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

SLICES_PER_TICK = 5
"""Slices of the nightly check in one tick: its sixty take a quarter of an hour and no run blocks a worker for long."""


@shared_task(name="audit.check_invariants")
def audit_recent_changes() -> TaskResult:
    """Check recent changes. Return `{"violations": {sentence: [ids]}}` and log each violation as an error."""
    with unit_of_work() as work:
        violations = violation_log.log_recent_violations(work.conn, work.now)
    return {"violations": _log_violations(violations or {})}


@shared_task(name="audit.check_everything")
def audit_everything() -> TaskResult:
    """Run the next slices of the nightly check of everything. Return and log as `audit_recent_changes` does."""
    violations: Violations = {}
    for _ in range(SLICES_PER_TICK):
        with unit_of_work() as work:
            audit_slice_violations = violation_log.log_violations_of_next_invariant(work.conn, work.now)
        if audit_slice_violations is None:
            break
        violations |= _log_violations(audit_slice_violations)
    return {"violations": violations}


def _log_violations(violations: Violations) -> Violations:
    for sentence, ids in violations.items():
        log.error("invariant_violated", sentence=sentence, ids=ids[:20])
    return violations
