"""The beat scheduler: sends each entry of the timetable at its interval, by the monotonic clock, and stores no state.

Celery's own scheduler compares wall-clock times with a last run that it keeps in a file: after the clock is set back,
it sends nothing until the clock has caught up, and a restart changes nothing.  Timetable tasks process whatever is due,
so no last run is worth keeping: every entry is sent once when beat starts and at its interval afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from celery.beat import Scheduler

# Beat adds no more ticks to a queue of this length: no worker reads it, or its ticks are enough.  Ticks do not expire:
# workers would drop every tick of a beat whose clock is far behind.  They process so many ticks within a minute.
MAX_QUEUED_TICKS = 20_000


class MonotonicScheduler(Scheduler):
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tick_count = 0
        """Ticks sent, or skipped because their queue was full; the watchdog checks that it grows."""
        self._due_at: dict[str, float] = {}
        self._is_ticking = self._is_closed = False
        super().__init__(*args, **kwargs)

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due, each entry once however overdue it is; return the seconds until the next one.

        Raises SystemExit once the scheduler has been closed.
        """
        self._is_ticking = True
        try:
            for entry in list(self.schedule.values()):
                if self._is_closed:
                    raise SystemExit
                now = self.clock()
                due_at = self._due_at.get(entry.name, now)
                if due_at <= now:
                    next_due_at = due_at + entry.schedule.seconds
                    self._due_at[entry.name] = next_due_at if next_due_at > now else now + entry.schedule.seconds
                    self.apply_entry(entry, producer=self.producer)
        finally:
            self._is_ticking = False
        wait = min(self._due_at.values(), default=float("inf")) - self.clock()
        return min(max(wait, 0.0), float(self.max_interval))

    def close(self) -> None:
        """celery.beat.Scheduler.close: leave the connection open while a tick uses it.

        The handler of TERM calls this in the middle of anything and then raises SystemExit. Reading from the closed
        connection would turn that into an ordinary error, which Celery logs before it goes on.
        """
        self._is_closed = True
        if not self._is_ticking:
            super().close()

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        if self._queue_length(producer, entry.options["queue"]) < MAX_QUEUED_TICKS:
            super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        self.tick_count += 1

    @staticmethod
    def _queue_length(producer: Any, queue: str) -> int:
        # 0 when the broker does not answer: sending has its own retries.
        with contextlib.suppress(*producer.connection.recoverable_connection_errors):
            # Not the producer's own channel: one that a failed publish closed would stay closed.
            return int(producer.connection.default_channel._size(queue))
        return 0
