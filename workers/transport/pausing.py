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

from models import pauses
from workers import lifecycle

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0  # seconds within which workers stop taking what is paused; what they have taken is finished
PAUSES_KEY, PAUSES_TTL_SECONDS = "unwind.pauses", 5  # what is paused, for Flower, which has no database
_NOTHING_PAUSED: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
_paused: tuple[frozenset[str], frozenset[str]] | None = _NOTHING_PAUSED
"""Paused queues and paused tasks; None while unknown.  Nothing is paused in a process that is no worker."""


def is_queue_paused(queue: str) -> bool:
    paused = _paused
    return paused is None or queue in paused[0]


def is_task_paused(task: str) -> bool:
    paused = _paused
    return paused is None or task in paused[1]


def pauses_as_json() -> str | None:
    """Return the paused queues and tasks, for processes without a database; None if there are none."""
    paused = _paused
    if paused is None or paused == _NOTHING_PAUSED:
        return None
    return json.dumps({"queues": sorted(paused[0]), "tasks": sorted(paused[1])})


def set_pauses(queues: frozenset[str], tasks: frozenset[str]) -> None:
    global _paused  # noqa: PLW0603 - one per process is the point
    if _paused != (queues, tasks):
        log.warning("pauses_changed", queues=sorted(queues), tasks=sorted(tasks))
    _paused = (queues, tasks)


class PauseReader(lifecycle.BackgroundThread):
    def __init__(self) -> None:
        super().__init__("pauses")
        self._database: Any = None

    def close(self) -> None:
        super().close()
        if self._database is not None:
            self._database.dispose()

    def read(self) -> None:
        if self._database is None:
            self._database = lifecycle.open_process_database()
        with self._database.transaction() as conn:
            paused = pauses.load_pauses(conn, self._database.clock.now(conn))
        set_pauses(paused.queues, paused.tasks)

    def run(self) -> None:
        while not self._stop_requested.wait(POLL_INTERVAL):
            try:
                self.read()
            except Exception as error:  # noqa: BLE001 - whatever it is, the last state applies until the next read
                log.debug("pauses_read_failed", error=type(error).__name__)


@signals.worker_init.connect
def _read_pauses_before_first_message(**_: Any) -> None:
    global _paused  # noqa: PLW0603 - one per process
    reader = PauseReader()
    try:
        reader.read()
    except OperationalError as error:
        log.warning("pauses_unknown", error=type(error).__name__)
        _paused = None
    except Exception as error:  # noqa: BLE001 - no database, or one without our tables: nothing can be paused
        log.debug("pauses_read_failed", error=type(error).__name__)
    reader.close()  # children that are forked now must not share the connection


@signals.worker_ready.connect
def _start_pause_reader(**_: Any) -> None:
    PauseReader().start()
