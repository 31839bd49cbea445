"""The connection to PostgreSQL: one engine per process, the settings of its sessions, and the clock.

The clock is PostgreSQL's (`clock_timestamp()`), so all workers share it; a simulation supplies its own (R104).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.exc import DisconnectionError

from models.db.driver import DriverConnection
from models.db.pipeline import driver_sql, execute, use_generic_plans
from models.db.postgres_address import PostgresAddress, clear_libpq_environment

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
"""Enforced by the server, not by signals: an exception inside COMMIT would leave its outcome unknown."""

PLANNER_SETTINGS = {"random_page_cost": "1.1", "jit": "off", "plan_cache_mode": "auto", "enable_seqscan": "on"}
"""The default page cost of 4 makes the planner scan whole tables for batches of five hundred rows.  JIT compilation
takes longer than any statement here."""

TRANSACTION_TIMEOUT_MS = 45_000
"""From PostgreSQL 17 on, and below a job's hard limit: a client suspended inside a pipeline is not idle to the server
and would keep its locks."""

PING_AFTER_IDLE_SECONDS = 1.0
"""A connection that was idle for longer is pinged before use.  A busy one fails at its next statement, and the command
is retried."""

_PROBE = b"unwind_probe"
_BY_KEYS, _IDLE_SINCE = "by keys", "idle since"

APP_ROLE = "unwind_app"
_SET_CONFIG = text("""
    SELECT name, pg_catalog.set_config(name, value, :is_local)
    FROM ROWS FROM (
        pg_catalog.unnest(CAST(:names AS pg_catalog.text[])), pg_catalog.unnest(CAST(:values AS pg_catalog.text[]))
    ) AS setting (name, value)
""")
_FIND_ROLE = text("""
    SELECT CASE WHEN :as_app AND EXISTS (
        SELECT FROM pg_catalog.pg_roles
        WHERE rolname = :role AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
    ) THEN :role ELSE 'none' END, pg_catalog.pg_backend_pid() <> :pid
""")
"""And whether a pooler is between: it answers the login itself, and another process serves."""
_IN_FORCE = text("""
    SELECT name, pg_catalog.current_setting(name)
    FROM pg_catalog.unnest(CAST(:names AS pg_catalog.text[])) AS setting (name)
""")
_CLOCK = select(func.clock_timestamp().label("instant"))
_COMMIT_WITHOUT_FLUSH = select(func.set_config("synchronous_commit", "off", True))

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
    "search_path": "pg_catalog, pg_temp",  # all names are qualified with their schema
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "idle_session_timeout": "0",  # a pool's connections and the listener's are idle by design
    **PLANNER_SETTINGS,
}
"""The settings of every session, whatever the defaults of the role, the database or the server are: the driver reads
dates, intervals and texts only in these forms, and the statements rely on this time zone and isolation level."""

_REQUIRED = {
    "server_encoding": "UTF8",
    "session_replication_role": "origin",  # otherwise triggers do not fire; only a superuser may set it
}


class Clock(Protocol):
    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        """Send the query for the instant; the returned function reads it (aware, UTC), after the pipeline."""
        ...

    def now(self, conn: Connection) -> datetime: ...


class DatabaseClock:
    def send_now(self, conn: Connection) -> Callable[[], datetime]:
        # Read when the server executes this statement, not at the transaction's start.
        cursor = execute(conn, _CLOCK, {})

        def read() -> datetime:
            instant: datetime = cursor.fetchall()[0].instant
            return instant.astimezone(UTC)

        return read

    def now(self, conn: Connection) -> datetime:
        return self.send_now(conn)()


@dataclass
class SimulatedClock:
    instant: datetime

    def send_now(self, conn: Connection) -> Callable[[], datetime]:  # noqa: ARG002 - the protocol of Clock
        return lambda: self.instant

    def now(self, conn: Connection) -> datetime:
        return self.send_now(conn)()


class SessionRefused(psycopg.OperationalError):
    """The server cannot be used as it is configured.  The message says why, `fix` what to do."""

    def __init__(self, code: str, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.code = code
        self.fix = fix


class DirectConnectionNeeded(SessionRefused):
    """Work that needs its own session has reached a pooler."""

    def __init__(self) -> None:
        super().__init__(
            "POOLER_WITHOUT_DIRECT_URL",
            "Notifications and backups do not pass through a pooler",
            "let UNWIND_DIRECT_DATABASE_URL name PostgreSQL itself.",
        )


def session_settings(server_version: int, *, as_app: bool, timeouts: bool = True) -> dict[str, str]:
    bounds = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    }
    if server_version >= 170_000:
        bounds["transaction_timeout"] = TRANSACTION_TIMEOUT_MS if as_app else 0
    return SESSION_SETTINGS | {name: f"{bound if timeouts else 0}ms" for name, bound in bounds.items()}


def prepare_session(driver: DriverConnection, *, as_app: bool, timeouts: bool = True, role: str = APP_ROLE) -> None:
    """Apply the session settings and verify them.  Raises SessionRefused, with the connection closed.

    Behind a pooler each transaction gets them in its first round trip instead (docs/decisions/0026).
    """
    before, driver.autocommit = driver.autocommit, True
    try:
        values = {"as_app": as_app, "role": role, "pid": driver.info.backend_pid}
        ((found_role, is_pooled),) = driver.execute(driver_sql(_FIND_ROLE), values, prepare=False).fetchall()
        settings = session_settings(driver.info.server_version, as_app=as_app, timeouts=timeouts) | {"role": found_role}
        if is_pooled and before:
            raise DirectConnectionNeeded
        if is_pooled:
            driver.autocommit = False
            driver.set_in_transactions(settings)
        else:
            driver.settings = settings
            _set_config(driver, is_local=False)
        if differing := _settings_not_in_force(driver):
            raise _session_refusal(differing)
        if is_pooled and not _keeps_prepared_statements(driver):
            driver.prepare_threshold = None
        driver.rollback()
        driver.autocommit = before
    except BaseException:
        driver.close()
        raise


def _settings_not_in_force(driver: DriverConnection) -> dict[str, str]:
    # The settings in force that differ from those of the connection or from those the program needs.
    names = [*driver.settings, *_REQUIRED]
    in_force = dict(driver.execute(driver_sql(_IN_FORCE), {"names": names}, prepare=False).fetchall())
    expected = _set_config(driver, is_local=True) | _REQUIRED  # as the server writes them
    return {name: in_force[name] for name in expected if in_force[name] != expected[name]}


def _set_config(driver: DriverConnection, *, is_local: bool) -> dict[str, str]:
    settings = driver.settings
    values = {"names": list(settings), "values": list(settings.values()), "is_local": is_local}
    return dict(driver.execute(driver_sql(_SET_CONFIG), values, prepare=False).fetchall())


def _keeps_prepared_statements(driver: DriverConnection) -> bool:
    # PgBouncer prepares a statement under a name of its own in each server process, from version 1.21 on and with
    # max_prepared_statements; otherwise our name arrives there, and the next transaction may not find it.
    if not psycopg.capabilities.has_send_close_prepared():
        return False
    pgconn = driver.pgconn
    pgconn.prepare(_PROBE, b"SELECT name FROM pg_catalog.pg_prepared_statements WHERE name = 'unwind_probe'")
    is_ours = pgconn.exec_prepared(_PROBE, None).ntuples > 0
    if is_ours:
        pgconn.exec_(b"DEALLOCATE " + _PROBE)
    else:
        pgconn.close_prepared(_PROBE)
    return not is_ours


def _session_refusal(differing: dict[str, str]) -> SessionRefused:
    if encoding := differing.get("server_encoding"):
        return SessionRefused(
            "DATABASE_ENCODING",
            f"The encoding of the database is {encoding}, which cannot hold every name and comment",
            "CREATE DATABASE unwind TEMPLATE template0 ENCODING 'UTF8', and let DATABASE_URL name it (pg_dump and "
            "pg_restore bring over what is in the old one).",
        )
    if "session_replication_role" in differing:
        return SessionRefused(
            "TRIGGERS_OFF",
            "Triggers are switched off for this login (session_replication_role), and they protect final rows",
            "ALTER ROLE ... RESET session_replication_role, for the login and for the database.",
        )
    return SessionRefused(
        "SESSION_SETTINGS",
        f"The server does not keep what a session sets ({', '.join(sorted(differing))})",
        "let DATABASE_URL name PostgreSQL itself.",
    )


def _wake_nothing(_task: str) -> None: ...


@dataclass
class Database:
    engine: Engine
    clock: Clock = field(default_factory=DatabaseClock)
    wake: Callable[[str], None] = _wake_nothing
    """Called after a commit with the name of a task that now has work; the timetable runs the same task later."""
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
                    if conn.info.get(_BY_KEYS, False) is not by_keys:
                        use_generic_plans(conn, by_keys)
                        conn.info[_BY_KEYS] = by_keys
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
    engine = create_engine(
        URL.create(
            "postgresql+psycopg", database=address.database
        ),  # only for display; `connect_args` say how to connect
        connect_args=address.connection_parameters(application_name),
        hide_parameters=True,  # keep personal data out of errors and logs
        **options,
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> DriverConnection:
        clear_libpq_environment()
        return DriverConnection.connect(**parameters)

    @event.listens_for(engine, "connect", insert=True)  # before the dialect inspects the session
    def _prepare(dbapi_connection: Any, _record: Any) -> None:
        prepare_session(dbapi_connection, as_app=as_app, timeouts=timeouts, role=role)

    return engine


def open_connection(
    database_url: str, *, application_name: str, autocommit: bool, role: str = APP_ROLE
) -> psycopg.Connection[Any]:
    clear_libpq_environment()
    address = PostgresAddress.parse(database_url)
    driver = DriverConnection.connect(**address.connection_parameters(application_name), autocommit=autocommit)  # type: ignore[arg-type]
    prepare_session(driver, as_app=True, role=role)
    return driver


def connect(
    database_url: str,
    *,
    clock: Clock | None = None,
    pool_size: int = 1,
    as_app: bool = True,
    role: str = APP_ROLE,
) -> Database:
    """Connect to a database.  `as_app`: every connection acts as `role`, the application's (models/ddl/grants.py)."""
    engine = make_engine(
        database_url,
        as_app=as_app,
        role=role,
        pool_size=pool_size,
        max_overflow=0,
        pool_recycle=1800,
        pool_timeout=5,
    )

    @event.listens_for(engine, "checkin")
    def _record_idle_since(_dbapi_connection: Any, record: Any) -> None:
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


def is_pooled(conn: Connection) -> bool:
    return _driver_of(conn).is_pooled


def keeps_prepared_statements(conn: Connection) -> bool:
    return _driver_of(conn).prepare_threshold is not None


def settings_not_in_force(conn: Connection) -> list[str]:
    return sorted(_settings_not_in_force(_driver_of(conn)))


def _driver_of(conn: Connection) -> DriverConnection:
    driver = conn.connection.driver_connection
    assert isinstance(driver, DriverConnection)
    return driver


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
