"""The database of a process: its engine, connections, transactions and clock.

The clock is PostgreSQL's (`clock_timestamp()`), so all workers share it; a simulation supplies its own (R104).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Protocol

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.db.driver import DriverConnection
from models.db.pipeline import execute, use_generic_plans
from models.db.postgres_address import PostgresAddress, clear_libpq_environment
from models.db.session_settings import apply_session_settings

PING_AFTER_IDLE_SECONDS = 1.0
"""A connection that was idle for longer is pinged before use.  A busy one fails at its next statement, and the command
is retried."""

APP_ROLE = "unwind_app"

_CLOCK = select(func.clock_timestamp().label("instant"))
_COMMIT_WITHOUT_FLUSH = select(func.set_config("synchronous_commit", "off", True))


class Clock(Protocol):
    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        """Send the query for the instant; the returned function reads it (aware, UTC), after the pipeline."""
        ...

    def now(self, conn: Connection) -> datetime:
        return self.send_now(conn)()


class DatabaseClock(Clock):
    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        # Read when the server executes this statement, not at the transaction's start.
        cursor = execute(conn, _CLOCK, {})
        return lambda: cursor.fetchall()[0].instant.astimezone(UTC)


@dataclass
class Database:
    engine: Engine
    clock: Clock = field(default_factory=DatabaseClock)
    wake: Callable[[str], None] = lambda _task: None
    """Called after a commit with the name of a task that now has work; the timetable runs the same task later."""
    wake_at_once: Callable[[str], None] = lambda _task: None
    """The same, called by a run that leaves work to the next, which need not wait for more commits."""
    allow_short_terms: bool = False
    """Whether terms with periods of seconds may be applied: only in simulations with their own database."""
    address: str = field(default="", repr=False)
    """The URL, with its password."""

    @contextmanager
    def transaction(self, *, by_keys: bool = False) -> Iterator[Connection]:
        """Open a transaction, committed at the end; any exception rolls back and discards the connection.

        `by_keys`: all statements find their rows by keys, so generic plans are used (`models.db.pipeline`).
        """
        with self.engine.connect() as conn:
            try:
                with conn.begin():
                    if conn.info.get("by_keys", False) is not by_keys:
                        use_generic_plans(conn, by_keys)
                        conn.info["by_keys"] = by_keys
                    yield conn
            except BaseException:
                conn.invalidate()  # a signal may have interrupted the protocol, so its state is unknown
                raise

    def dispose(self) -> None:
        self.engine.dispose()


def make_engine(
    database_url: str,
    *,
    as_app: bool = False,
    timeouts: bool = True,
    application_name: str = "unwind",
    role: str = APP_ROLE,
    **options: Any,
) -> Engine:
    address = PostgresAddress.parse(database_url)
    return create_engine(
        URL.create("postgresql+psycopg", database=address.database),  # only for display
        creator=partial(_open_connection, address, application_name, as_app=as_app, role=role, timeouts=timeouts),
        hide_parameters=True,  # keep personal data out of errors and logs
        **options,
    )


def open_database_connection(
    database_url: str, *, application_name: str, autocommit: bool, role: str = APP_ROLE
) -> DriverConnection:
    address = PostgresAddress.parse(database_url)
    return _open_connection(address, application_name, as_app=True, role=role, autocommit=autocommit)


def _open_connection(
    address: PostgresAddress, application_name: str, *, autocommit: bool = False, **settings: Any
) -> DriverConnection:
    clear_libpq_environment()
    parameters = address.connection_parameters(application_name)
    connection = DriverConnection.connect(**parameters, autocommit=autocommit)  # type: ignore[arg-type]
    apply_session_settings(connection, **settings)
    return connection


def connect(
    database_url: str, *, clock: Clock | None = None, pool_size: int = 1, as_app: bool = True, role: str = APP_ROLE
) -> Database:
    """Connect to a database.  `as_app`: every connection acts as `role`, the application's (models/ddl/grants.py)."""
    engine = make_engine(
        database_url, as_app=as_app, role=role, pool_size=pool_size, max_overflow=0, pool_recycle=1800, pool_timeout=5
    )

    @event.listens_for(engine, "checkin")
    def _record_idle_since(_dbapi_connection: Any, record: Any) -> None:
        record.info["idle_since"] = monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        if monotonic() - record.info.get("idle_since", float("inf")) < PING_AFTER_IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(dbapi_connection)
        except psycopg.Error as dead:
            raise DisconnectionError from dead  # the pool opens another one

    return Database(engine, clock or DatabaseClock(), address=database_url)


def use_snapshot_isolation(conn: Connection) -> None:
    """Make all statements of this transaction read one snapshot.  Must be its first statement."""
    conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def commit_without_flush(conn: Connection) -> None:
    """Let this commit return before it is on disk: a crash of the server may undo it (docs/decisions/0029)."""
    execute(conn, _COMMIT_WITHOUT_FLUSH, {})


_bound: Database | None = None


def set_database(database: Database | None) -> None:
    global _bound  # noqa: PLW0603 - one per process is the point
    _bound = database


def current_database() -> Database:
    if _bound is None:
        raise RuntimeError(
            "no database is bound: call models.db.database.set_database(connect(url)) when the process starts"
        )
    return _bound


_DATABASE_UNAVAILABLE_STATES = ("08", "53", "57P", "58", "25006")
"""SQL states of connections, resources, shutdown, the database system itself, and of a read-only server."""


def is_database_unavailable(error: BaseException) -> bool:
    """Whether the database or the connection failed rather than the task, so nothing was committed and a retry is safe.

    A statement that was cancelled by its timeout does not count: a retry would be cancelled too.
    """
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        if error.connection_invalidated or (state is not None and state.startswith(_DATABASE_UNAVAILABLE_STATES)):
            return True
        return state is None and isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, PoolTimeout)
