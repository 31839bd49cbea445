"""How does a command that came in by SQL get going at once?  One thread per worker group listens and sends a message.

PostgreSQL tells of each commit that submitted something.  The timetable looks too, so whatever a lost connection misses waits a few
seconds at most.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable
from time import monotonic

import psycopg
import structlog

from models.db.database import open_connection
from models.db.postgres_address import PostgresAddress
from models.submissions import CHANNEL

log = structlog.get_logger(__name__)

POLL_INTERVAL = 1.0
MIN_WAKE_INTERVAL = 0.05
"""Seconds.  A drain takes everything that is due, so whatever is told of meanwhile needs only one more: with a message for each
commit, drains that found nothing stood before the commands of the other door (72 of 110 messages in a measured backlog)."""
INITIAL_WAIT, MAX_WAIT = 0.5, 30.0
"""Seconds between tries to reach a database that is away."""
HEALTHY_AFTER = 60.0
"""Seconds of listening after which the next loss is a new one, not the same again."""
SERVER_RESPONSE_TIMEOUT = 5.0
"""Seconds.  A server that does not say within them whether it can be written is taken for lost: one that is stopped keeps its
connections open."""


class ListenerDisconnected(psycopg.OperationalError):
    """The server at the other end is silent, or can no longer be written and so has nothing to tell of."""


class Listener:
    """Calls `wake` soon after every commit that submitted a command, until it is closed."""

    def __init__(self, database_url: str, wake: Callable[[], None]) -> None:
        self._address = PostgresAddress.parse(database_url)
        self._wake = wake
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self.listening = threading.Event()
        self._since = float("inf")

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """End, within about a second."""
        self._closed.set()
        self._thread.join(5)

    def _run(self) -> None:
        wait = INITIAL_WAIT
        while not self._closed.is_set():
            self._since = float("inf")
            try:
                self._listen()
            except (psycopg.Error, OSError) as error:
                if monotonic() - self._since >= HEALTHY_AFTER:
                    wait = INITIAL_WAIT
                log.warning("nobody listens for submissions, trying again", error=type(error).__name__, wait=wait)
            self.listening.clear()
            self._closed.wait(wait)
            wait = min(wait * 2, MAX_WAIT)

    def _listen(self) -> None:
        connection = open_connection(self._address, application_name="unwind listen", autocommit=True)
        with contextlib.closing(connection) as conn:
            conn.execute(f"LISTEN {CHANNEL}")
            self._since = monotonic()
            self.listening.set()
            self._call()  # whatever came while nobody listened
            while not self._closed.is_set():
                if _was_notified(conn):
                    self._call()
                    self._closed.wait(MIN_WAKE_INTERVAL)

    def _call(self) -> None:
        with contextlib.suppress(Exception):  # a broker that is away is the timetable's business
            self._wake()


def _was_notified(conn: psycopg.Connection) -> bool:
    """Wait a moment for a notification, and ask the server whether it can still be written.  Raises NobodyTells."""
    driver = conn.pgconn
    if _readable(conn, POLL_INTERVAL):
        driver.consume_input()
    driver.send_query(b"SELECT pg_catalog.pg_is_in_recovery()")
    driver.flush()
    until = monotonic() + SERVER_RESPONSE_TIMEOUT
    answers = []
    while True:
        while driver.is_busy():
            if not _readable(conn, until - monotonic()):
                raise ListenerDisconnected("the server is silent")
            driver.consume_input()
        if (answer := driver.get_result()) is None:
            break
        answers.append(answer.get_value(0, 0))
    if answers != [b"f"]:
        raise ListenerDisconnected("the server is a standby")
    notified = False
    while driver.notifies() is not None:
        notified = True
    return notified


def _readable(conn: psycopg.Connection, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(conn.fileno(), select.POLLIN)
    return bool(waiting.poll(max(0.0, seconds) * 1000))
