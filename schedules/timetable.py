"""When is everything looked at?  One table: what for, which task, how often; nothing here decides anything.

Every entry is level-triggered: its task finds whatever is due, however long nobody looked, and two looks at once change
nothing.  So beat keeps nothing and starts everything when it starts, and a tick is worth nothing where enough of them wait: a
worker that was stopped for three days finds some thousands, not a quarter of a million (`workers/beat.py`).  Intervals, no
crontab: nothing depends on a zone or on the wall clock of beat's machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from schedules.routes import HEARTBEAT_QUEUES, queue_of


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the timetable."""

    title: str
    task: str
    every: timedelta
    full_pass_interval: timedelta | None = None
    """How often its work comes to an end, where that takes many ticks: what a run is judged by."""

    @property
    def queue(self) -> str:
        """Through which queue the tick goes."""
        return queue_of(self.task)


TIMETABLE: tuple[Entry, ...] = (
    # P7, X6: commits nudge the relay at once; this is the net for a nudge that was lost.
    Entry("ring what commits have promised", "outbox.relay", timedelta(seconds=2)),
    # A commit with a submission is told of at once (LISTEN); this is the net for when nobody listened, and for a set whose
    # drain died: nobody is told when its lease runs out.
    Entry("take commands that came in by SQL", "submissions.drain", timedelta(seconds=2)),
    # P3, R41: "found by the first sweep" is the promise, so the cadence is what a seller may wait beyond the instant.
    Entry("unlock matured NPB alerts", "npb.scan_open_alerts", timedelta(seconds=1)),
    Entry("unlock matured NRS and NSS alerts", "alerts.scan_seller_alerts", timedelta(seconds=1)),
    # First tries are rung by the recording commit; this one is for letters whose next try has come (R102).
    Entry("send letters again", "notices.deliver", timedelta(seconds=15)),
    # N16, N17 count in days.
    Entry("remind of open cases", "reminders.scan", timedelta(minutes=1)),
    # R86: bills exist from the 5th 00:00 of the billing zone; a minute is well inside anybody's morning.
    Entry("issue bills that should exist", "bills.issue", timedelta(minutes=1)),
    # promises.md, Invariants: of what changed lately and a slice of the rest; and of everything, a portion a tick at night.
    Entry("compare what is with what must be", "audit.check_invariants", timedelta(minutes=1)),
    Entry("compare everything, once a night", "audit.check_everything", timedelta(minutes=1), timedelta(days=1)),
    # X9: a worker that misses three of them while messages wait is ended (workers/monitoring/watchdog.py).
    *(Entry(f"see that {queue} are taken", task, timedelta(seconds=15)) for task, queue in HEARTBEAT_QUEUES.items()),
)
