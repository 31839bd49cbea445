"""Paused queues and tasks, as this worker last read them from the database.

They are read once before the worker takes a message, and then every second by a thread.  While the database is away the
last state applies.  A worker that has read none yet takes nothing: pauses survive restarts, and without a database no
task can run.
"""

from __future__ import annotations

import json
from typing import Any

import structlog
from celery import signals
from sqlalchemy.exc import OperationalError

from models.db.database import Database
from models.pauses import StoredPauses, load_pauses
from workers import lifecycle

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0  # seconds within which workers stop taking what is paused; what they have taken is finished
PAUSES_KEY, PAUSES_TTL_SECONDS = "unwind.pauses", 5  # what is paused, for Flower, which has no database
_paused: StoredPauses | None = StoredPauses()
"""None while unknown.  Nothing is paused in a process that is no worker."""


def is_queue_paused(queue: str) -> bool:
    return _paused is None or queue in _paused.queues


def is_task_paused(task: str) -> bool:
    return _paused is None or task in _paused.tasks


def pauses_as_json() -> str | None:
    """Return the paused queues and tasks, for processes without a database; None if there are none."""
    paused = _paused
    if paused is None or paused == StoredPauses():
        return None
    return json.dumps({"queues": sorted(paused.queues), "tasks": sorted(paused.tasks)})


def _read_pauses(database: Database) -> None:
    global _paused  # noqa: PLW0603 - one per process is the point
    with database.transaction() as conn:
        paused = load_pauses(conn, database.clock.now(conn))
    if _paused != paused:
        log.warning("pauses_changed", queues=sorted(paused.queues), tasks=sorted(paused.tasks))
    _paused = paused


class PauseReader(lifecycle.BackgroundThread):
    def run(self) -> None:
        with lifecycle.process_database() as database:
            while not self._stop_requested.wait(POLL_INTERVAL):
                try:
                    _read_pauses(database)
                except Exception as error:  # noqa: BLE001 - whatever it is, the last state applies until the next read
                    log.debug("pauses_read_failed", error=type(error).__name__)


@signals.worker_init.connect
def _read_pauses_before_first_message(**_: Any) -> None:
    global _paused  # noqa: PLW0603 - one per process
    try:
        with lifecycle.process_database() as database:  # children that are forked later must not share the connection
            _read_pauses(database)
    except OperationalError as error:
        log.warning("pauses_unknown", error=type(error).__name__)
        _paused = None
    except Exception as error:  # noqa: BLE001 - a database without our tables: nothing can be paused
        log.debug("pauses_read_failed", error=type(error).__name__)


@signals.worker_ready.connect
def _start_pause_reader(**_: Any) -> None:
    PauseReader().start()
