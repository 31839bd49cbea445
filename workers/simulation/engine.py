"""A simulation that runs the product's tasks in this process, with a settable clock and no broker; its databases.

Replay and tests use a `Simulation`. It runs the same task bodies in the same transactions as the workers. Outbox tasks
run before the next command. Time moves from deadline to deadline: each sweep runs exactly when something that it covers
becomes due.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import click
from sqlalchemy import Connection, NullPool, text

from models import alerts, automation, bills, notices, outbox, reminders
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.db.database import make_engine
from models.monitoring.server_info import fact
from workers.app import app
from workers.embedded.client import embedded_servers
from workers.migrate import migrate

# Functions that return the next deadline, each with the sweeps that cover it, in the order used at equal instants.
SIMULATED_DEADLINES: tuple[tuple[Callable[[Connection], datetime | None], tuple[str, ...]], ...] = (
    (alerts.next_unlock_at, ("npb.scan_open_alerts", "alerts.scan_seller_alerts")),
    (automation.next_automatic_filing_at, ("automation.file_alerts",)),
    (automation.next_cancellation_warning_at, ("automation.cancel",)),
    (automation.next_automatic_cancellation_at, ("automation.cancel",)),
    (automation.next_automatic_agreement_at, ("automation.resolve_requests",)),
    (automation.next_automatic_decline_at, ("automation.resolve_requests",)),
    (notices.next_delivery_at, ("notices.deliver",)),
    (reminders.next_ocr_reminder_at, ("reminders.scan",)),
    (reminders.next_alert_reminder_at, ("reminders.scan",)),
    (bills.next_bill_issue_at, ("bills.issue",)),
)


@dataclass
class SimulatedClock(db.Clock):
    instant: datetime

    def send_now(self, conn: Connection) -> Callable[[], datetime]:  # noqa: ARG002 - the protocol of db.Clock
        return lambda: self.instant


class Simulation:
    def __init__(
        self, database_url: str, *, at: datetime = datetime(2026, 3, 1, tzinfo=UTC), allow_short: bool = False
    ) -> None:
        self.clock = SimulatedClock(at)
        self.database = db.connect(database_url, clock=self.clock)
        self.database.allow_short_terms = allow_short
        self._numbers = itertools.count(1)
        self._woken: set[str] = set()
        self.database.wake = self.database.wake_at_once = self._woken.add
        self.on_sweep: Callable[[datetime, str, dict[str, Any]], None] = lambda *_: None
        """Callback after each sweep, with its instant, its name and its effects."""

    def __enter__(self) -> Self:
        db.set_database(self.database)
        return self

    def __exit__(self, *_: object) -> None:
        db.set_database(None)
        self.database.dispose()

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        return self.execute(task, arguments, f"simulation-{next(self._numbers)}")

    def execute(self, task: str, arguments: dict[str, Any], message_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = app.tasks[task].validate_and_run(arguments, message_id)
        return answer

    def process_outbox(self) -> None:
        while True:
            with self.database.transaction() as conn:
                due = outbox.tasks_due(conn, self.clock.now(conn))
            due += sorted(self._woken - {outbox.RELAY})
            self._woken.clear()
            if not due:
                return
            for task in due:
                retry_on_conflict(app.tasks[task].run)

    def advance(self, to: datetime) -> None:
        """Advance the clock to `to`, inclusive, and run each sweep at every instant at which something becomes due.

        Outbox tasks run as they are created.
        Raises ValueError if `to` is before the clock's instant, and RuntimeError if a sweep leaves work.
        """
        if to < self.clock.instant:
            raise ValueError("the clock cannot be set back")
        last: tuple[datetime, tuple[str, ...]] | None = None
        while True:
            self.process_outbox()
            with self.database.transaction() as conn:
                due = [
                    (at, sweeps) for find, sweeps in SIMULATED_DEADLINES if (at := find(conn)) is not None and at <= to
                ]
            if not due:
                self.clock.instant = to
                return
            instant, sweeps = min(due, key=lambda entry: entry[0])
            # Work that became due before the simulation's start or during its commands is late: it runs now.
            self.clock.instant = max(instant, self.clock.instant)
            if last == (instant, sweeps):
                raise RuntimeError(f"{' and '.join(sweeps)} did not process everything due at {instant}")
            last = (instant, sweeps)
            for sweep in sweeps:
                self.on_sweep(self.clock.instant, sweep, retry_on_conflict(app.tasks[sweep].run))


@contextlib.contextmanager
def simulation_pool() -> Iterator[SimulationPool]:
    with (
        tempfile.TemporaryDirectory(prefix="unwind-replay-") as folder,
        embedded_servers(Path(folder), durable=False) as urls,
    ):
        yield SimulationPool(urls.database_url)


class SimulationPool:
    def __init__(self, database_url: str) -> None:
        self._server, _, _ = database_url.rpartition("/")
        self._admin = make_engine(database_url, timeouts=False, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._run("CREATE DATABASE unwind_first TEMPLATE template0")
        migrate(f"{self._server}/unwind_first")

    @contextlib.contextmanager
    def fresh(self, at: datetime, *, allow_short: bool = False) -> Iterator[Simulation]:
        self._run("CREATE DATABASE unwind_history TEMPLATE unwind_first STRATEGY FILE_COPY")
        with Simulation(f"{self._server}/unwind_history", at=at, allow_short=allow_short) as simulation:
            yield simulation
        self._run("DROP DATABASE unwind_history WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with self._admin.connect() as conn:
            conn.execute(text(statement))


def simulation_in_empty_database(database_url: str, at: datetime, *, allow_short: bool = False) -> Simulation:
    with make_engine(database_url, poolclass=NullPool).connect() as conn:
        has_contents = fact(conn, _SIMULATION_DATABASE_HAS_CONTENTS)
    if has_contents:
        raise click.ClickException(
            "The database is not empty. A history is only played into one that has no tables yet."
        )
    migrate(database_url)
    return Simulation(database_url, at=at, allow_short=allow_short)


_SIMULATION_DATABASE_HAS_CONTENTS = """
    SELECT EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ) OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'unwind')
"""
