"""What becomes of a command whose worker dies with it, again and again, or that never ends?  It is parked, not forgotten.

Celery sends such a job again a few times as a new message (`task_retry_on_worker_lost`) and then acknowledges it.  The process
that could have parked it is dead, so the worker's head does it, before that (`workers.transport.acknowledgement`).
Ticks and rings need
nothing: they come again by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from models import dead_jobs, requests
from workers.errors import summarize
from workers.lifecycle import open_database, process_settings

log = structlog.get_logger(__name__)


def park_lost_job(task: str, message_id: str, arguments: Any, reason: str, attempts: int) -> bool:
    """Whether it is durable what became of the job: it is parked now, or was answered before its process died."""
    known: Mapping[str, Any] = arguments if isinstance(arguments, Mapping) else {}
    try:
        database = open_database(process_settings())
        try:
            with database.transaction() as conn:
                answered = requests.is_answered(conn, dead_jobs.request_id_of(known) or message_id)
                if not answered:
                    dead_jobs.park(
                        conn,
                        task=task,
                        message_id=message_id,
                        arguments=known,
                        error=dead_jobs.REASONS[reason],
                        reason=reason,
                        attempts=attempts,
                        now=database.clock.now(conn),
                    )
        finally:
            database.dispose()
    except Exception as error:  # noqa: BLE001 - the worker's head must live on, and the message goes back
        log.error("a lost job cannot be parked now", task=task, message=message_id, error=summarize(error))
        return False
    if answered:
        log.warning("a job was answered before it was lost", task=task, message=message_id)
    else:
        log.error("a lost job is parked", task=task, message=message_id, reason=reason)
    return True
