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
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from models.db.pipeline import execute, use_generic_plans
from models.db.postgres_address import PostgresAddress, clear_libpq_environment

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
"""Bounded by the server, not by signals: an exception raised inside COMMIT leaves the outcome unknown (reliability F27)."""

PLANNER_SETTINGS = {"random_page_cost": "1.1", "jit": "off", "plan_cache_mode": "auto", "enable_seqscan": "on"}
"""What is worked on lies in memory or on a solid-state disk; the default cost of 4 reads whole tables where a set of five
hundred needs a row for each.  Compiling statements (`jit`) costs more than any of ours takes."""

TRANSACTION_TIMEOUT_MS = 45_000
"""From PostgreSQL 17 on, and below a job's hard limit: a client that stops between the statements of one trip is not idle to the
server, and would keep its locks as long as it is paused (F07)."""

PING_AFTER_IDLE_SECONDS = 1.0
"""Seconds.  A connection that was idle for so long is asked whether it lives before it is used.  One that is busy finds out by its
next statement: the command then comes again, as it would if the statement after had failed."""

_BY_KEYS, _IDLE_SINCE = "by keys", "idle since"

APP_ROLE = "unwind_app"
_SET = """
    SELECT name, pg_catalog.set_config(name, value, false)
    FROM ROWS FROM (
        pg_catalog.unnest(%(names)s::pg_catalog.text[]), pg_catalog.unnest(%(values)s::pg_catalog.text[])
    ) AS wanted (name, value)
"""
_SET_ROLE = """
    SELECT 'role', set_config('role', CASE WHEN %(as_app)s AND EXISTS (
        SELECT FROM pg_roles WHERE rolname = %(role)s AND pg_has_role(session_user, oid, 'MEMBER')
    ) THEN %(role)s ELSE 'none' END, false)
"""
_IN_FORCE = """
    SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.unnest(%(names)s::pg_catalog.text[]) AS asked (name)
"""

SESSION_SETTINGS = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "search_path": "pg_catalog, pg_temp",  # every name of ours is written with its schema
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "idle_session_timeout": "0",  # a pool's connections and the listener's are idle by design
    **PLANNER_SETTINGS,
}
"""What every session has, whatever the role, the database or the server has for others (ALTER ROLE ... SET): the driver reads
dates, intervals and texts in these forms only, and rules are written for one zone and one isolation."""

_REQUIRED = {
    "server_encoding": "UTF8",
    "session_replication_role": "origin",  # else no trigger guards what is final; only a superuser may set it
}


class Clock(Protocol):
    """What time it is for the transaction on `conn`."""

    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        """Ask for the instant, to be read when the statements that go with it were sent: aware, UTC."""
        ...

    def now(self, conn: Connection) -> datetime:
        """The same, read at once."""
        ...


class DatabaseClock:
    """The live clock: that of the database server, read after the locks (reliability F50)."""

    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        """The server's wall clock when it comes to this statement, not at the transaction's start."""
        asked = execute(conn, "SELECT clock_timestamp() AS instant", {})

        def read() -> datetime:
            instant: datetime = asked.fetchall()[0].instant
            return instant.astimezone(UTC)

        return read

    def now(self, conn: Connection) -> datetime:
        """The same, at this moment."""
        return self.send_now(conn)()


@dataclass
class SimulatedClock:
    """The clock of a replay: whatever it was set to last."""

    instant: datetime

    def send_now(self, conn: Connection) -> Callable[[], datetime]:  # noqa: ARG002 - the same question as to every clock
        """The instant that was set."""
        return lambda: self.instant

    def now(self, conn: Connection) -> datetime:
        """The same."""
        return self.send_now(conn)()


class SessionRefused(psycopg.OperationalError):
    """The server cannot be worked with as it is.  Its message says why, `fix` what helps."""

    def __init__(self, code: str, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.code = code
        self.fix = fix


def session_settings(server_version: int, *, as_app: bool, timeouts: bool = True) -> dict[str, str]:
    """The settings of our sessions on a server of that version.  `timeouts`: false for what may take as long as it takes."""
    bounds = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    }
    if server_version >= 170_000:
        bounds["transaction_timeout"] = TRANSACTION_TIMEOUT_MS if as_app else 0
    return SESSION_SETTINGS | {name: f"{bound if timeouts else 0}ms" for name, bound in bounds.items()}


def prepare_session(driver: psycopg.Connection[Any], *, as_app: bool, timeouts: bool = True) -> None:
    """Set what a session must have and ask whether it has it.  Raises SessionRefused, with the connection closed."""
    before, driver.autocommit = driver.autocommit, True
    try:
        wanted = session_settings(driver.info.server_version, as_app=as_app, timeouts=timeouts)
        values = {"names": list(wanted), "values": list(wanted.values())}
        expected = dict(driver.execute(_SET, values, prepare=False).fetchall()) | _REQUIRED
        expected |= driver.execute(_SET_ROLE, {"as_app": as_app, "role": APP_ROLE}, prepare=False).fetchall()
        in_force = dict(driver.execute(_IN_FORCE, {"names": list(expected)}, prepare=False).fetchall())
        wrong = {name: in_force[name] for name in expected if in_force[name] != expected[name]}
        if wrong:
            raise _refusal(wrong)
        driver.autocommit = before
    except BaseException:
        driver.close()
        raise


def _refusal(wrong: dict[str, str]) -> SessionRefused:
    if encoding := wrong.get("server_encoding"):
        return SessionRefused(
            "DATABASE_ENCODING",
            f"The encoding of the database is {encoding}, which cannot hold every name and comment",
            "CREATE DATABASE unwind TEMPLATE template0 ENCODING 'UTF8', and let DATABASE_URL name it (pg_dump and "
            "pg_restore bring over what is in the old one).",
        )
    if "session_replication_role" in wrong:
        return SessionRefused(
            "TRIGGERS_OFF",
            "Triggers are switched off for this login (session_replication_role), and they guard what is final",
            "ALTER ROLE ... RESET session_replication_role, for the login and for the database.",
        )
    return SessionRefused(
        "SESSION_SETTINGS",
        f"The server does not keep what a session sets ({', '.join(sorted(wrong))})",
        "let DATABASE_URL name PostgreSQL itself, or a pooler with pool_mode = session.",
    )


def _nobody_waits() -> None:
    """Nothing to nudge."""


@dataclass
class Database:
    """One process's way to the database.  `on_outbox_insert` is called after a commit that promised something."""

    engine: Engine
    clock: Clock = field(default_factory=DatabaseClock)
    on_outbox_insert: Callable[[], None] = _nobody_waits
    allow_short_terms: bool = False
    """Terms of seconds may be applied here: true only for a history played into a database of its own."""
    address: str = field(default="", repr=False)
    """Where it is, with its password."""

    @contextmanager
    def transaction(self, *, by_keys: bool = False) -> Iterator[Connection]:
        """One transaction, committed at its end; any exception rolls back and gives the connection up for lost.

        `by_keys`: all of its statements find their rows by keys, and their plans are kept (`models.db.pipeline.use_generic_plans`).
        """
        with self.engine.connect() as conn:
            try:
                with conn.begin():
                    if conn.info.get(_BY_KEYS, False) is not by_keys:
                        use_generic_plans(conn, by_keys)
                        conn.info[_BY_KEYS] = by_keys
                    yield conn
            except BaseException:
                conn.invalidate()  # its state is unknown after a signal in mid-protocol (reliability F43)
                raise

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def make_engine(
    database_url: str,
    *,
    as_app: bool = False,
    timeouts: bool = True,
    application_name: str = "unwind",
    **options: Any,
) -> Engine:
    """An engine whose sessions are all alike: the address parsed by us, the environment's ignored, the settings ours."""
    address = PostgresAddress.parse(database_url)
    engine = create_engine(
        URL.create("postgresql+psycopg", database=address.database),  # what is shown of it; how to connect comes next
        connect_args=address.connection_parameters(application_name),
        hide_parameters=True,  # comments and addresses stay out of errors, and so out of logs (P9)
        **options,
    )

    @event.listens_for(engine, "do_connect")
    def _ignore_environment(*_: Any) -> None:
        clear_libpq_environment()

    @event.listens_for(engine, "connect", insert=True)  # before the dialect asks what sort of session it has
    def _prepare(dbapi_connection: Any, _record: Any) -> None:
        prepare_session(dbapi_connection, as_app=as_app, timeouts=timeouts)

    return engine


def open_connection(address: PostgresAddress, *, application_name: str, autocommit: bool) -> psycopg.Connection[Any]:
    """A connection outside any engine, in the application's role, otherwise like those of `make_engine`."""
    clear_libpq_environment()
    driver = psycopg.connect(**address.connection_parameters(application_name), autocommit=autocommit)  # type: ignore[arg-type]
    prepare_session(driver, as_app=True)
    return driver


def connect(database_url: str, *, clock: Clock | None = None, pool_size: int = 1, as_app: bool = True) -> Database:
    """Open the database.  `as_app`: every connection acts as the application's role, which cannot rewrite history."""
    engine = make_engine(
        database_url,
        as_app=as_app,
        pool_size=pool_size,
        max_overflow=0,
        pool_recycle=1800,
        pool_timeout=5,
    )

    @event.listens_for(engine, "checkin")
    def _note_when(_dbapi_connection: Any, record: Any) -> None:
        record.info[_IDLE_SINCE] = monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        if monotonic() - record.info.get(_IDLE_SINCE, float("inf")) < PING_AFTER_IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(dbapi_connection)
        except psycopg.Error as dead:
            raise DisconnectionError from dead  # the pool opens another one

    return Database(engine, clock or DatabaseClock(), address=database_url)


def open_second_connection(database: Database) -> Database:
    """A second way to the same database, for a thread beside the task that uses the first."""
    return connect(database.address, clock=database.clock)


_bound: Database | None = None


def set_database(database: Database | None) -> None:
    """Make `database` the one that this process works with."""
    global _bound  # noqa: PLW0603 - one per process is the point
    _bound = database


def current_database() -> Database:
    """The database of this process."""
    if _bound is None:
        raise RuntimeError(
            "no database is bound: call models.db.database.set_database(connect(url)) when the process starts"
        )
    return _bound
