"""How is a history played without broker and sleep?  The same task bodies, the same transactions, a clock one sets.

Replay and tests stand on a `Simulation`: commands are carried out in this process, what a commit promised is kept before the
next command, and time moves from deadline to deadline: each sweep runs exactly when something it covers becomes due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from models import alerts, bills, notices, outbox, reminders
from models.db import database as db
from models.unit_of_work import retry_on_conflict
from workers.app import app
from workers.task import execute

Deadline = Callable[[Connection], datetime | None]


DEADLINES: tuple[tuple[Deadline, tuple[str, ...]], ...] = (
    (alerts.next_unlock_at, ("npb.scan_open_alerts", "alerts.scan_seller_alerts")),
    (notices.next_try_at, ("notices.deliver",)),
    (reminders.next_reminder_at, ("reminders.scan",)),
    (bills.next_issue_at, ("bills.issue",)),
)
"""When is something due, and which sweeps cover it?  In the order in which they run at equal instants."""


def _nobody_listens(_instant: datetime, _sweep: str, _effects: dict[str, Any]) -> None:
    """Nobody wants to know."""


class SweepStuck(Exception):
    """A sweep ran and what it covers is still due: going on would never end."""


class Simulation:
    """One database with a simulated clock, bound to this process while the simulation stands."""

    def __init__(
        self, database_url: str, *, at: datetime = datetime(2026, 3, 1, tzinfo=UTC), allow_short: bool = False
    ) -> None:
        """`at` is where the clock stands.  `allow_short`: terms of seconds may be applied, for rehearsals."""
        self.clock = db.SimulatedClock(at)
        self.database = db.connect(database_url, clock=self.clock)
        self.database.allow_short_terms = allow_short
        self._numbers = itertools.count(1)
        self.on_sweep: Callable[[datetime, str, dict[str, Any]], None] = _nobody_listens
        """Called after each sweep with its instant, its name and its effects."""

    def __enter__(self) -> Self:
        db.set_database(self.database)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        db.set_database(None)
        self.database.dispose()

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Carry out one task by its wire name at the clock's instant; gives its answer."""
        return self.execute(task, arguments, f"simulation-{next(self._numbers)}")

    def execute(self, task: str, arguments: dict[str, Any], message_id: str) -> dict[str, Any]:
        """The same with the id of the message that would have brought it: it stands in for a missing `request_id`."""
        return execute(app.tasks[task], arguments, message_id)

    def process_outbox(self) -> int:
        """Keep everything that was promised and is due, until nothing is left; gives how many promises were kept."""
        count = 0
        while True:
            with self.database.transaction() as conn:
                due = outbox.tasks_due(conn, self.clock.now(conn))
            if not due:
                return count
            for task in due:
                retry_on_conflict(app.tasks[task].run)
            count += 1

    def advance(self, to: datetime) -> int:
        """Let time pass until `to`, inclusive: every sweep at every instant at which something becomes due.

        Promises are kept as they are made.  Gives how many instants there were.  Raises ValueError when `to` is past.
        """
        if to < self.clock.instant:
            raise ValueError("time does not run backwards")
        instants = 0
        last: tuple[datetime, tuple[str, ...]] | None = None
        while True:
            self.process_outbox()
            found = self._next_due()
            if found is None or found[0] > to:
                self.clock.instant = to
                return instants
            instant, sweeps = found
            # What became due before the simulation stood here, or while its commands ran, is late and found now.
            self.clock.instant = max(instant, self.clock.instant)
            if last == (instant, sweeps):
                raise SweepStuck(f"{' and '.join(sweeps)} left behind what was due at {instant}")
            last = (instant, sweeps)
            for sweep in sweeps:
                self.on_sweep(self.clock.instant, sweep, retry_on_conflict(app.tasks[sweep].run))
            instants += 1

    def _next_due(self) -> tuple[datetime, tuple[str, ...]] | None:
        """The earliest deadline and the sweeps that cover it."""
        with self.database.transaction() as conn:
            due = [(instant, sweeps) for find, sweeps in DEADLINES if (instant := find(conn)) is not None]
        return min(due, key=lambda one: one[0], default=None)
