"""The beat scheduler: starts each entry of the timetable at its interval, by the monotonic clock, and keeps nothing.

Celery's own scheduler compares wall-clock times with a last run that it keeps in a file: after a clock was set back it sends
nothing until the clock has come to that time again, and a restart changes nothing.  The timetable is level-triggered, so no last
run is worth keeping: everything is started at once when beat starts, and at its interval afterwards.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

MAX_QUEUED_TICKS = 20_000
"""Messages in a queue above which no tick is added: nobody reads it, or what waits is tick enough.

A number and no `expires`: that is an instant of beat's clock, compared by a worker's, and a beat whose clock is far behind would
send only what every worker drops.  So many ticks that find nothing are worked off within a minute.
"""


class MonotonicScheduler(Scheduler):
    """Starts entries at their intervals; `timedelta` schedules only."""

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tick_count = 0
        """Ticks that were sent, or not needed because their queue holds enough.  The watcher looks at this."""
        self._due_at: dict[str, float] = {}
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the configured entries.  Raises TypeError for one that is not an interval."""
        self.merge_inplace(self.app.conf.beat_schedule)
        for entry in self.schedule.values():
            _interval(entry)

    def tick(self, *_: Any, **__: Any) -> float:
        """Start what is due, each entry once however long ago that was; returns seconds until the next is."""
        for entry in list(self.schedule.values()):
            now = self.clock()
            due_at = self._due_at.get(entry.name, now)
            if due_at > now:
                continue
            following = due_at + _interval(entry)
            self._due_at[entry.name] = following if following > now else now + _interval(entry)
            self.apply_entry(entry, producer=self.producer)
        wait = min(self._due_at.values(), default=float("inf")) - self.clock()
        return min(max(wait, 0.0), float(self.max_interval))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send one tick unless its queue holds enough.  Raises SchedulingError."""
        if _waiting(producer, entry.options.get("queue")) < MAX_QUEUED_TICKS:
            super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        self.tick_count += 1


def _interval(entry: ScheduleEntry) -> float:
    every = getattr(entry.schedule, "run_every", None)
    if not isinstance(every, timedelta):
        raise TypeError(f"The timetable entry {entry.name!r} is no interval, and beat keeps to no wall clock.")
    return every.total_seconds()


def _waiting(producer: Any, queue: str | None) -> int:
    """How many messages a queue holds; 0 where the broker cannot say, for sending has its own way of trying again."""
    if producer is None or queue is None:
        return 0
    with contextlib.suppress(*producer.connection.recoverable_connection_errors):
        return int(producer.channel._size(queue))
    return 0
