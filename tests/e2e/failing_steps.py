"""What does a worker look like in which a step of failing fails?  `celery -A tests.e2e.failing_steps worker`.

The same application.  For as long as the file that TEST_FAILING names exists, the step that it holds raises, or ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.backends.redis import RedisBackend

from models import dead_jobs, session
from workers import job, lost, transport, wiring
from workers.app import app

__all__ = ["STEPS", "app"]

FAILING = "TEST_FAILING"
STEPS: dict[str, tuple[Any, str]] = {
    "describing": (job, "described"),
    "telling the kinds of failure apart": (job, "is_database_trouble"),
    "finding the way through the code": (job, "path_of"),
    "reading the first error": (job.Job, "_first_error"),
    "making the retry": (job.Job, "signature_from_request"),
    "publishing the retry": (job.Job, "apply_async"),
    "parking": (job, "park"),
    "hashing what is parked": (dead_jobs, "payload_hash"),
    "reading the clock": (session.DatabaseClock, "now"),
    "finding the database": (session, "bound"),
    "saying it in the log": (job.log, "error"),
    "raising what Celery is told": (job, "told"),
    "storing what became of it": (RedisBackend, "store_result"),
}
DYING = "dying"
LOST = "parking what was lost"
CHECKING, CONNECTING = "checking what it needs", "connecting a process"


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


if FAILING in os.environ:  # a test that reads the names of the steps works with them whole
    transport.MAX_RETURN_AFTER = 1.0
    job.LONGEST_WAIT = 1.0
    session.LOCK_TIMEOUT_MS = 500
    for _name, (_where, _attribute) in STEPS.items():
        _break(_name, _where, _attribute)
    _break(LOST, lost, "open_database")
    _break(CHECKING, wiring, "check")
    _break(CONNECTING, wiring, "start")
    job.Job.__call__ = _die(job.Job.__call__)  # type: ignore[method-assign]
