"""Where is the database, and what time is it there?  One engine per process, bound once, with the clock that decides.

The clock is PostgreSQL's (`clock_timestamp()`), so all workers share one; replay supplies its own instead (R104).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from models.driver import plan_by_keys, run

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
"""Bounded by the server, not by signals: an exception raised inside COMMIT leaves the outcome unknown (reliability F27)."""

PLANNING = "-c random_page_cost=1.1 -c jit=off"
"""What is worked on lies in memory or on a solid-state disk; the default cost of 4 reads whole tables where a set of five
hundred needs a row for each.  Compiling statements (`jit`) costs more than any of ours takes."""

TRANSACTION_TIMEOUT_MS = 45_000
"""From PostgreSQL 17 on, and below a job's hard limit: a client that stops between the statements of one trip is not idle to the
server, and would keep its locks as long as it is paused (F07)."""

PING_AFTER = 1.0
"""Seconds.  A connection that was idle for so long is asked whether it lives before it is used.  One that is busy finds out by its
next statement: the command then comes again, as it would if the statement after had failed."""

_BY_KEYS, _IDLE_SINCE = "by keys", "idle since"

APP_ROLE = "unwind_app"
_ENTER_ROLE = """
    SELECT set_config('role', :role, false) FROM pg_roles
    WHERE rolname = :role AND pg_has_role(session_user, oid, 'MEMBER')
"""

_BOUND_TRANSACTIONS = """
    SELECT set_config(name, %(most)s, false) FROM pg_settings WHERE name = 'transaction_timeout'
"""


class Clock(Protocol):
    """What time it is for the transaction on `conn`."""

    def ask(self, conn: Connection) -> Callable[[], datetime]:
        """Ask for the instant, to be read when the statements that go with it were sent: aware, UTC."""
        ...

    def now(self, conn: Connection) -> datetime:
        """The same, read at once."""
        ...


class DatabaseClock:
    """The live clock: that of the database server, read after the locks (reliability F50)."""

    def ask(self, conn: Connection) -> Callable[[], datetime]:
        """The server's wall clock when it comes to this statement, not at the transaction's start."""
        asked = run(conn, "SELECT clock_timestamp() AS instant", {})

        def read() -> datetime:
            instant: datetime = asked.fetchall()[0].instant
            return instant.astimezone(UTC)

        return read

    def now(self, conn: Connection) -> datetime:
        """The same, at this moment."""
        return self.ask(conn)()


@dataclass
class SimulatedClock:
    """The clock of a replay: whatever it was set to last."""

    instant: datetime

    def ask(self, conn: Connection) -> Callable[[], datetime]:  # noqa: ARG002 - the same question as to every clock
        """The instant that was set."""
        return lambda: self.instant

    def now(self, conn: Connection) -> datetime:
        """The same."""
        return self.ask(conn)()


def _nobody_waits() -> None:
    """Nothing to nudge."""


@dataclass
class Database:
    """One process's way to the database.  `on_promise` is called after a commit that promised something."""

    engine: Engine
    clock: Clock = field(default_factory=DatabaseClock)
    on_promise: Callable[[], None] = _nobody_waits
    short_terms: bool = False
    """Terms of seconds may be applied here: true only for a history played into a database of its own."""

    @contextmanager
    def transaction(self, *, by_keys: bool = False) -> Iterator[Connection]:
        """One transaction, committed at its end; any exception rolls back and gives the connection up for lost.

        `by_keys`: all of its statements find their rows by keys, and their plans are kept (`models.driver.plan_by_keys`).
        """
        with self.engine.connect() as conn:
            try:
                with conn.begin():
                    if conn.info.get(_BY_KEYS, False) is not by_keys:
                        plan_by_keys(conn, by_keys)
                        conn.info[_BY_KEYS] = by_keys
                    yield conn
            except BaseException:
                conn.invalidate()  # its state is unknown after a signal in mid-protocol (reliability F43)
                raise

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def connect(database_url: str, *, clock: Clock | None = None, pool_size: int = 1, as_app: bool = True) -> Database:
    """Open the database.  `as_app`: every connection acts as the application's role, which cannot rewrite history."""
    engine = create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        pool_recycle=1800,
        pool_timeout=5,
        hide_parameters=True,  # comments and addresses stay out of errors, and so out of logs (P9)
        connect_args={
            "connect_timeout": 5,
            "application_name": "unwind",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS} "
            f"{PLANNING} "
            f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS}",
        },
    )
    if as_app:

        @event.listens_for(engine, "connect")
        def _enter_role(dbapi_connection: Any, _record: Any) -> None:
            with dbapi_connection.cursor() as cursor:
                cursor.execute(_ENTER_ROLE.replace(":role", "%(role)s"), {"role": APP_ROLE})
                cursor.execute(_BOUND_TRANSACTIONS, {"most": f"{TRANSACTION_TIMEOUT_MS}ms"})
            dbapi_connection.commit()

    @event.listens_for(engine, "checkin")
    def _note_when(_dbapi_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        if monotonic() - record.info.get(_IDLE_SINCE, float("inf")) < PING_AFTER:
            return
        try:
            engine.dialect.do_ping(dbapi_connection)
        except psycopg.Error as dead:
            raise DisconnectionError from dead  # the pool opens another one

    return Database(engine, clock or DatabaseClock())


_bound: Database | None = None


def bind(database: Database | None) -> None:
    """Make `database` the one that this process works with."""
    global _bound  # noqa: PLW0603 - one per process is the point
    _bound = database


def bound() -> Database:
    """The database of this process."""
    if _bound is None:
        raise RuntimeError("no database is bound: call models.session.bind(connect(url)) when the process starts")
    return _bound
