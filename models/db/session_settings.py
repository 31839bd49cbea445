"""The settings of a session: applied to a new connection and verified; a server that does not keep them is refused."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Connection, func, select, text

from models.db.driver import DriverConnection, driver_of
from models.db.pipeline import driver_sql

SESSION_STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 3_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
"""Enforced by the server, not by signals: an exception inside COMMIT would leave its outcome unknown."""

TRANSACTION_TIMEOUT_MS = 45_000
"""From PostgreSQL 17 on, and below a job's hard limit: a client suspended inside a pipeline is not idle to the server
and would keep its locks."""

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
    "random_page_cost": "1.1",  # the default of 4 makes the planner scan whole tables for five hundred rows
    "jit": "off",  # compilation takes longer than any statement here
    "plan_cache_mode": "auto",
    "enable_seqscan": "on",
}
"""The settings of every session, whatever the defaults of the role, the database or the server are: the driver reads
dates, intervals and texts only in these forms, and the statements rely on this time zone and isolation level."""

_REQUIRED_SESSION_SETTINGS = {
    "server_encoding": "UTF8",
    "session_replication_role": "origin",  # otherwise triggers do not fire; only a superuser may set it
}
_SET_SESSION_SETTINGS = text("""
    SELECT name, pg_catalog.set_config(name, value, :is_local)
    FROM ROWS FROM (
        pg_catalog.unnest(CAST(:names AS pg_catalog.text[])), pg_catalog.unnest(CAST(:values AS pg_catalog.text[]))
    ) AS setting (name, value)
""")
_FIND_SESSION_ROLE = text("""
    SELECT CASE WHEN :as_app AND EXISTS (
        SELECT FROM pg_catalog.pg_roles
        WHERE rolname = :role AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
    ) THEN :role ELSE 'none' END, pg_catalog.pg_backend_pid() <> :pid
""")
"""Return the role to use, and whether the connection goes through a pooler (then the backend pid differs from the
login's)."""
_SESSION_SETTINGS_IN_FORCE = text("""
    SELECT name, pg_catalog.current_setting(name)
    FROM pg_catalog.unnest(CAST(:names AS pg_catalog.text[])) AS setting (name)
""")
_PREPARED_PROBE = b"unwind_probe"


class SessionSettingsRefused(psycopg.OperationalError):
    """The server cannot be used as it is configured.  The message says why, `fix` what to do."""

    def __init__(self, code: str, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.code = code
        self.fix = fix


class PooledSessionRefused(SessionSettingsRefused):
    def __init__(self) -> None:
        super().__init__(
            "POOLER_WITHOUT_DIRECT_URL",
            "Notifications and backups do not pass through a pooler",
            "let UNWIND_DIRECT_DATABASE_URL name PostgreSQL itself.",
        )


def session_settings(server_version: int, *, as_app: bool, timeouts: bool = True) -> dict[str, str]:
    bounds = {
        "statement_timeout": SESSION_STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    }
    if server_version >= 170_000:
        bounds["transaction_timeout"] = TRANSACTION_TIMEOUT_MS if as_app else 0
    return SESSION_SETTINGS | {name: f"{bound if timeouts else 0}ms" for name, bound in bounds.items()}


def apply_session_settings(driver: DriverConnection, *, as_app: bool, role: str, timeouts: bool = True) -> None:
    """Apply the session settings and verify them.  Raises SessionSettingsRefused, with the connection closed.

    Behind a pooler each transaction gets them in its first round trip instead (docs/decisions/0026).
    """
    before, driver.autocommit = driver.autocommit, True
    try:
        values = {"as_app": as_app, "role": role, "pid": driver.info.backend_pid}
        ((found_role, is_pooled),) = driver.execute(driver_sql(_FIND_SESSION_ROLE), values, prepare=False).fetchall()
        settings = session_settings(driver.info.server_version, as_app=as_app, timeouts=timeouts) | {"role": found_role}
        if is_pooled and before:
            raise PooledSessionRefused
        if is_pooled:
            driver.autocommit = False
            driver.set_in_transactions(settings)
        else:
            driver.settings = settings
            _set_session_settings(driver, is_local=False)
        if differing := _changed_session_settings(driver):
            raise _session_settings_refusal(differing)
        if is_pooled and not _probe_prepared_statements(driver):
            driver.prepare_threshold = None
        driver.rollback()
        driver.autocommit = before
    except BaseException:
        driver.close()
        raise


def _probe_prepared_statements(driver: psycopg.Connection[Any]) -> bool:
    # PgBouncer prepares a statement under a name of its own in each server process, from version 1.21 on and with
    # max_prepared_statements; otherwise our name arrives there, and the next transaction may not find it.
    if not psycopg.capabilities.has_send_close_prepared():
        return False
    pgconn = driver.pgconn
    pgconn.prepare(_PREPARED_PROBE, b"SELECT name FROM pg_catalog.pg_prepared_statements WHERE name = 'unwind_probe'")
    is_ours = pgconn.exec_prepared(_PREPARED_PROBE, None).ntuples > 0
    if is_ours:
        pgconn.exec_(b"DEALLOCATE " + _PREPARED_PROBE)
    else:
        pgconn.close_prepared(_PREPARED_PROBE)
    return not is_ours


def _changed_session_settings(driver: DriverConnection) -> dict[str, str]:
    # The settings in force that differ from those of the connection or from those the program needs.
    names = [*driver.settings, *_REQUIRED_SESSION_SETTINGS]
    in_force = dict(driver.execute(driver_sql(_SESSION_SETTINGS_IN_FORCE), {"names": names}, prepare=False).fetchall())
    expected = _set_session_settings(driver, is_local=True) | _REQUIRED_SESSION_SETTINGS  # as the server writes them
    return {name: in_force[name] for name in expected if in_force[name] != expected[name]}


def _set_session_settings(driver: DriverConnection, *, is_local: bool) -> dict[str, str]:
    settings = driver.settings
    values = {"names": list(settings), "values": list(settings.values()), "is_local": is_local}
    return dict(driver.execute(driver_sql(_SET_SESSION_SETTINGS), values, prepare=False).fetchall())


def _session_settings_refusal(differing: dict[str, str]) -> SessionSettingsRefused:
    if encoding := differing.get("server_encoding"):
        return SessionSettingsRefused(
            "DATABASE_ENCODING",
            f"The encoding of the database is {encoding}, which cannot hold every name and comment",
            "CREATE DATABASE unwind TEMPLATE template0 ENCODING 'UTF8', and let DATABASE_URL name it (pg_dump and "
            "pg_restore bring over what is in the old one).",
        )
    if "session_replication_role" in differing:
        return SessionSettingsRefused(
            "TRIGGERS_OFF",
            "Triggers are switched off for this login (session_replication_role), and they protect final rows",
            "ALTER ROLE ... RESET session_replication_role, for the login and for the database.",
        )
    return SessionSettingsRefused(
        "SESSION_SETTINGS",
        f"The server does not keep what a session sets ({', '.join(sorted(differing))})",
        "let DATABASE_URL name PostgreSQL itself.",
    )


def session_settings_not_in_force(conn: Connection) -> list[str]:
    return sorted(_changed_session_settings(driver_of(conn)))


def set_local(conn: Connection, **settings: str) -> None:
    """Like SET LOCAL, but a SELECT: a transaction's isolation must be set before it."""
    conn.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))


def lift_time_limits(conn: Connection) -> None:
    """Let this transaction read for as long as there are rows.  It must hold no lock that anybody waits for."""
    conn.execute(
        text(
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN "
            "('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
        )
    )
