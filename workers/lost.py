"""What becomes of a command whose worker dies with it, again and again, or that never ends?  It is parked, not forgotten.

Celery sends such a job again a few times as a new message (`task_retry_on_worker_lost`) and then acknowledges it.  The process
that could have parked it is dead, so the worker's head does it here.  Ticks and rings need nothing: they come again by themselves.
"""

from __future__ import annotations

from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals

log = structlog.get_logger(__name__)


@signals.task_failure.connect
def park_lost(
    sender: Any = None, task_id: str | None = None, exception: Any = None, kwargs: Any = None, **_: Any
) -> None:
    """Receivers run in the worker's head for failures that the child could not report."""
    if not isinstance(exception, WorkerLostError | TimeLimitExceeded):
        return
    from models import dead_jobs
    from workers.job import command_of
    from workers.wiring import open_database, settings

    if command_of(sender) is None:
        return
    reason = "TOO_LONG" if isinstance(exception, TimeLimitExceeded) else "WORKER_DIED"
    try:
        database = open_database(settings())
        try:
            with database.transaction() as conn:
                dead_jobs.park(
                    conn,
                    task=sender.name,
                    message_id=task_id,
                    arguments=kwargs if isinstance(kwargs, dict) else {},
                    error=f"{type(exception).__name__}: {dead_jobs.REASONS[reason]}",
                    reason=reason,
                    attempts=sender.max_retries + 1,
                    now=database.clock.now(conn),
                )
        finally:
            database.dispose()
    except Exception as error:  # noqa: BLE001 - the worker's head must live on; the caller has no answer and sends again (P1)
        log.error("a lost job could not be parked", task=sender.name, message=task_id, error=type(error).__name__)
        return
    log.error("a lost job is parked", task=sender.name, message=task_id, reason=reason)
