"""How does a command that came in by SQL get going at once?  One thread per worker group listens and sends a message.

PostgreSQL tells of each commit that submitted something.  The timetable looks too, so whatever a lost connection misses waits a few
seconds at most.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psycopg
import structlog

from models.submissions import CHANNEL

log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0
CALL_EVERY = 0.05
"""Seconds.  A drain takes everything that is due, so whatever is told of meanwhile needs only one more: with a message for each
commit, drains that found nothing stood before the commands of the other door (72 of 110 messages in a measured backlog)."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds between tries to reach a database that is away."""


class Listener:
    """Calls `wake` soon after every commit that submitted a command, until it is closed."""

    def __init__(self, database_url: str, wake: Callable[[], None]) -> None:
        self._url = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._wake = wake
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self.listening = threading.Event()

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """End, within about a second."""
        self._closed.set()
        self._thread.join(5)

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._closed.is_set():
            try:
                self._listen()
                wait = FIRST_WAIT
            except (psycopg.Error, OSError) as error:
                log.warning("nobody listens for submissions, trying again", error=type(error).__name__, wait=wait)
            self.listening.clear()
            self._closed.wait(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _listen(self) -> None:
        with psycopg.connect(self._url, autocommit=True, application_name="unwind listen", connect_timeout=5) as conn:
            conn.execute(f"LISTEN {CHANNEL}")
            self.listening.set()
            self._call()  # whatever came while nobody listened
            while not self._closed.is_set():
                if list(conn.notifies(timeout=LOOK_EVERY, stop_after=1)):
                    self._call()
                    self._closed.wait(CALL_EVERY)

    def _call(self) -> None:
        with contextlib.suppress(Exception):  # a broker that is away is the timetable's business
            self._wake()
