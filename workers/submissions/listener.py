"""A thread that listens for commits through the SQL interface and wakes the submissions consumer at once.

PostgreSQL notifies it of each commit that submitted a command.  The timetable polls too, so what a lost connection
misses waits a few seconds at most.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from multiprocessing.connection import wait as wait_for_input
from time import monotonic
from typing import Any

import psycopg
import structlog
from celery import current_app, signals

from models.db.database import open_database_connection
from models.submissions import CHANNEL
from schedules.routes import queue_of
from workers.broker.wakeups import Wakeups
from workers.lifecycle import BackgroundThread
from workers.settings import current_settings

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0
MIN_WAKE_INTERVAL = 0.05
"""Seconds between two runs of the consumer: one run takes every submission that is due, and with a message per commit,
runs that found nothing stood before commands of the message interface."""
INITIAL_WAIT, MAX_WAIT = 0.5, 30.0
"""Seconds between the listener's attempts to connect to a database that is away."""
HEALTHY_AFTER = 60.0
"""Seconds of listening after which the next lost connection starts again with the initial wait."""
LISTENER_CHECK_TIMEOUT = 5.0
"""Seconds within which the server must say whether it accepts writes; a stopped server keeps its connections open."""


class Listener(BackgroundThread):
    def __init__(self, database_url: str, wake: Callable[[], None]) -> None:
        super().__init__()
        self._database_url = database_url
        self._wake = wake
        self.listening = threading.Event()
        self._listening_since = float("inf")

    def run(self) -> None:
        wait = INITIAL_WAIT
        while not self._stop_requested.is_set():
            self._listening_since = float("inf")
            try:
                self._listen_for_submissions()
            except (psycopg.Error, OSError) as error:
                if monotonic() - self._listening_since >= HEALTHY_AFTER:
                    wait = INITIAL_WAIT
                log.warning("listener_disconnected", error=type(error).__name__, wait=wait)
            self.listening.clear()
            self._stop_requested.wait(wait)
            wait = min(wait * 2, MAX_WAIT)

    def _listen_for_submissions(self) -> None:
        connection = open_database_connection(self._database_url, application_name="unwind listen", autocommit=True)
        with contextlib.closing(connection) as conn:
            conn.execute(f"LISTEN {CHANNEL}")
            self._listening_since = monotonic()
            self.listening.set()
            self._wake_consumer()  # for commits made while no connection listened
            while not self._stop_requested.is_set():
                if self._was_notified(conn):
                    self._wake_consumer()
                    self._stop_requested.wait(MIN_WAKE_INTERVAL)

    def _was_notified(self, conn: psycopg.Connection) -> bool:
        # Wait a moment for a notification, and ask the server whether it accepts writes. Raises OperationalError.
        pgconn = conn.pgconn
        if wait_for_input([conn.fileno()], POLL_INTERVAL):
            pgconn.consume_input()
        pgconn.send_query(b"SELECT pg_catalog.pg_is_in_recovery()")
        pgconn.flush()
        deadline = monotonic() + LISTENER_CHECK_TIMEOUT
        values = []
        while True:
            while pgconn.is_busy():
                if not wait_for_input([conn.fileno()], deadline - monotonic()):
                    raise psycopg.OperationalError("the server does not respond")
                pgconn.consume_input()
            if (result := pgconn.get_result()) is None:
                break
            values.append(result.get_value(0, 0))
        if values != [b"f"]:
            raise psycopg.OperationalError("the server is a standby")
        return bool(list(iter(pgconn.notifies, None)))

    def _wake_consumer(self) -> None:
        with contextlib.suppress(Exception):  # without a broker, the timetable's tick does it later
            self._wake()


@signals.worker_ready.connect
def _start_submissions_listener(**_: Any) -> None:
    # Every worker that reads the submissions' queue has a listener: one for each worker group.
    settings = current_settings()
    url, broker_url = settings.listener_url, settings.broker_url
    if url and broker_url and queue_of("submissions.drain") in current_app.amqp.queues.consume_from:
        wakeups = Wakeups(current_app, broker_url.get_secret_value())
        wakeups.begin("submissions.drain")  # a worker that was killed may have left the key without a message
        Listener(url.get_secret_value(), lambda: wakeups.send("submissions.drain")).start()
