"""The application with failing error handling, for `celery -A tests.e2e.failing_steps worker`.

While the file named by TEST_FAILING exists, the step named in it raises, or kills the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.backends.redis import RedisBackend

from models import dead_jobs
from models.db import database as db
from models.db import session_settings
from workers import lifecycle, task
from workers.app import app
from workers.transport import lost_jobs, qos

__all__ = ["STEPS", "app"]

FAILING = "TEST_FAILING"
STEPS: dict[str, tuple[Any, str]] = {
    "summarizing the error": (task, "summarize_error"),
    "classifying the error": (task, "is_database_unavailable"),
    "locating the error in the code": (task, "traceback_path"),
    "reading the first error": (task.BaseTask, "_first_error"),
    "creating the retry": (task.BaseTask, "signature_from_request"),
    "publishing the retry": (task.BaseTask, "apply_async"),
    "parking the job": (dead_jobs, "park_job"),
    "hashing the parked payload": (dead_jobs, "dead_job_payload_hash"),
    "reading the clock": (db.DatabaseClock, "now"),
    "finding the database": (db, "current_database"),
    "logging the error": (task.log, "error"),
    "raising the error for Celery": (task, "sanitize_error"),
    "storing the result": (RedisBackend, "store_result"),
}
DYING = "dying"
LOST = "parking the lost job"
CHECKING, CONNECTING = "checking the configuration", "connecting a process"


class StepFailed(Exception):
    """A step of failing failed."""


def _failing() -> str | None:
    file = Path(os.environ[FAILING])
    return file.read_text() if file.exists() else None


def _break(name: str, where: Any, attribute: str) -> None:
    real: Callable[..., Any] = getattr(where, attribute)

    def step(*args: Any, **kwargs: Any) -> Any:
        if _failing() == name:
            raise StepFailed
        return real(*args, **kwargs)

    setattr(where, attribute, step)


def _die(call: Callable[..., Any]) -> Callable[..., Any]:
    def dies(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _failing() in (DYING, LOST) and self.name == "members.record":
            os._exit(3)
        return call(self, *args, **kwargs)

    return dies


if FAILING in os.environ:  # a test that reads the names of the steps must not fail at one
    qos.MAX_RETURN_DELAY = 1.0
    task.MAX_WAIT = 1.0
    session_settings.LOCK_TIMEOUT_MS = 500
    for _name, (_where, _attribute) in STEPS.items():
        _break(_name, _where, _attribute)
    _break(LOST, lost_jobs, "process_database")
    _break(CHECKING, lifecycle, "check_process_configuration")
    _break(CONNECTING, lifecycle, "connect_process")
    task.BaseTask.__call__ = _die(task.BaseTask.__call__)  # type: ignore[method-assign]
