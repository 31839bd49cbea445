"""How is a history played without broker and without sleeping?  The same task bodies, the same transactions, a clock one sets.

Replay and tests stand on a `Stage`: commands are carried out in this process, and what a commit promised is kept before the
next command.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from models import outbox, session
from models.work import at_once
from workers.app import app
from workers.job import carry_out


class Stage:
    """One database with a simulated clock, bound to this process while the stage stands."""

    def __init__(self, database_url: str, *, at: datetime = datetime(2026, 3, 1, tzinfo=UTC)) -> None:
        self.clock = session.SimulatedClock(at)
        self.database = session.connect(database_url, clock=self.clock)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Stage:
        session.bind(self.database)
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        session.bind(None)
        self.database.dispose()

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Carry out one task by its wire name at the clock's instant; gives its answer."""
        return carry_out(app.tasks[task], arguments, f"stage-{next(self._numbers)}")

    def settle(self) -> int:
        """Keep everything that was promised and is due, until nothing is left; gives how many promises were kept."""
        count = 0
        while True:
            with self.database.transaction() as conn:
                due = outbox.tasks_due(conn, self.clock.now(conn))
            if not due:
                return count
            for task in due:
                at_once(app.tasks[task].run)
            count += 1
