"""Parking of commands whose worker process repeatedly dies or runs too long.

Celery sends such a task again a few times as a new message (`task_retry_on_worker_lost`) and then acknowledges it.  The
process that could have parked it is dead, so the worker's parent process parks it before the acknowledgement
(`workers.transport.acknowledgement`).  Ticks and outbox messages need nothing: they are sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from models import dead_jobs, stored_answers
from workers.errors import summarize_error
from workers.lifecycle import process_database

log = structlog.get_logger(__name__)


def park_lost_job(task: str, message_id: str, arguments: Mapping[str, Any], reason: str, attempts: int) -> bool:
    """Park the command unless it was answered before its process died; return False when neither could be
    established."""
    try:
        with process_database() as database, database.transaction() as conn:
            request_id = dead_jobs.dead_job_request_id(arguments) or message_id
            answered = stored_answers.answered_at(conn, request_id) is not None
            if not answered:
                dead_jobs.park_job(
                    conn,
                    task=task,
                    message_id=message_id,
                    arguments=arguments,
                    error=dead_jobs.DEAD_JOB_REASONS[reason],
                    reason=reason,
                    attempts=attempts,
                    now=database.clock.now(conn),
                )
    except Exception as error:  # noqa: BLE001 - the worker's parent must live on, and the message goes back
        log.error("lost_job_park_failed", task=task, message=message_id, error=summarize_error(error))
        return False
    if answered:
        log.warning("lost_job_already_answered", task=task, message=message_id)
    else:
        log.error("lost_job_parked", task=task, message=message_id, reason=reason)
    return True
