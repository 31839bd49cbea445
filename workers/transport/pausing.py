"""What an operator has paused, as this worker last read it from the database; the transport obeys it.

Read once before the worker takes anything, and every second by a thread.  While the database is away the last answer holds.
A worker that has none yet takes nothing: what is paused survives restarts, and without a database nothing could be done.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import structlog
from celery import signals

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0
"""Seconds within which workers obey, besides what they have in hand."""

_NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
_paused: tuple[frozenset[str], frozenset[str]] | None = _NOTHING
"""Queues and tasks; None while it is not known.  Programs that are no workers have nothing paused."""


def is_queue_paused(queue: str) -> bool:
    """Whether nothing is to be taken from it."""
    paused = _paused
    return paused is None or queue in paused[0]


def is_task_paused(task: str) -> bool:
    """Whether messages of it are to be laid aside."""
    paused = _paused
    return paused is None or task in paused[1]


def pauses_as_json() -> str | None:
    """What is paused, for whoever has no database; None for nothing."""
    paused = _paused
    if paused is None or paused == _NOTHING:
        return None
    return json.dumps({"queues": sorted(paused[0]), "tasks": sorted(paused[1])})


def set_pauses(queues: frozenset[str], tasks: frozenset[str]) -> None:
    """From now on these are paused, and nothing else."""
    global _paused  # noqa: PLW0603 - one per process is the point
    if _paused != (queues, tasks):
        log.warning("pauses_changed", queues=sorted(queues), tasks=sorted(tasks))
    _paused = (queues, tasks)


class PauseReader:
    """Reads what is paused, by a connection of its own."""

    def __init__(self) -> None:
        self._database: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pauses", daemon=True)

    def start(self) -> None:
        """Read on, every second."""
        self._thread.start()

    def close(self) -> None:
        """End, within a few seconds."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._dispose()

    def read(self) -> None:
        """Read once.  Raises what the database raises."""
        from models import pauses
        from workers import lifecycle

        if self._database is None:
            self._database = lifecycle.open_database(lifecycle.process_settings())
        try:
            with self._database.transaction() as conn:
                paused = pauses.paused_names(conn, self._database.clock.now(conn))
        except BaseException:
            self._dispose()
            raise
        set_pauses(paused.queues, paused.tasks)

    def _dispose(self) -> None:
        if self._database is not None:
            self._database.dispose()
            self._database = None

    def _run(self) -> None:
        while not self._closed.wait(POLL_INTERVAL):
            try:
                self.read()
            except Exception as error:  # noqa: BLE001 - whatever it is, the last answer holds and it is asked again
                log.debug("pauses_not_read", error=type(error).__name__)


_reader: PauseReader | None = None


@signals.worker_init.connect
def _read_before_anything_is_taken(**_: Any) -> None:
    global _paused, _reader  # noqa: PLW0603 - one per process
    from sqlalchemy.exc import OperationalError

    _reader = PauseReader()
    try:
        _reader.read()
    except OperationalError as error:
        log.warning("pauses_unknown", error=type(error).__name__)
        _paused = None
    except Exception as error:  # noqa: BLE001 - no database, or one without our tables: nobody can have paused anything
        log.debug("pauses_not_read", error=type(error).__name__)
    _reader._dispose()  # children that are forked now must not share the connection


@signals.worker_ready.connect
def _read_on(**_: Any) -> None:
    if _reader is not None:
        _reader.start()


@signals.worker_shutting_down.connect
def _stop_reading(**_: Any) -> None:
    if _reader is not None:
        _reader.close()
