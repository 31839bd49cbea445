"""Facts about the database server: schema revision, connections, roles and settings. `fact` returns one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

HAS_ROLE = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)"
CAN_CHANGE_APPEND_ONLY_TABLES = "SELECT has_table_privilege('unwind.events', 'UPDATE, DELETE')"
# A role with few rights should own each function that runs with its owner's rights.
FUNCTIONS_RUNNING_AS_OWNER = """
    SELECT ARRAY(
        SELECT CAST(p.proname AS text) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = 'unwind' AND p.prosecdef AND p.proowner = n.nspowner ORDER BY 1)
"""
PUBLIC_CAN_CREATE_TEMPORARY_OBJECTS = "SELECT has_database_privilege('public', current_database(), 'TEMPORARY')"
# Tells two databases apart: two servers do not start in the same microsecond.
SERVER_IDENTITY = """
    SELECT concat(extract(epoch FROM pg_postmaster_start_time()), '|', oid)
    FROM pg_database WHERE datname = current_database()
"""
IS_STANDBY = "SELECT pg_is_in_recovery()"
HAS_SYNCHRONOUS_STANDBY = """
    SELECT current_setting('synchronous_standby_names') <> ''
        AND current_setting('synchronous_commit') IN ('on', 'remote_apply', 'remote_write')
"""
UNSAFE_DURABILITY_SETTINGS = """
    SELECT ARRAY(
        SELECT name || ' = off' FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
        AND setting = 'off' AND source <> 'command line' ORDER BY name)
"""
CONNECTIONS_ALLOWED = """
    SELECT CAST(current_setting('max_connections') AS integer)
        - CAST(current_setting('superuser_reserved_connections') AS integer)
        - COALESCE(CAST(current_setting('reserved_connections', true) AS integer), 0)
"""
CONNECTIONS_USED = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
_LONG_LOCK_HOLDERS = """
    SELECT a.pid, a.usename AS login, a.application_name AS application,
        coalesce(a.xact_start, a.state_change) AS since
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
        AND coalesce(a.xact_start, a.state_change) < clock_timestamp() - CAST(:long AS interval)
        AND EXISTS (
            SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.granted AND (
                l.locktype = 'advisory' OR l.mode <> 'AccessShareLock' AND l.relation IN (
                    SELECT c.oid FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('unwind'))))
    ORDER BY since
"""


def fact(conn: Connection, query: str, **values: Any) -> Any:
    return conn.execute(text(query), values).scalar()


def schema_revision(conn: Connection) -> str | None:
    if not fact(conn, "SELECT to_regclass('unwind.alembic_version') IS NOT NULL"):
        return None
    revision: str | None = fact(conn, "SELECT max(version_num) FROM unwind.alembic_version")
    return revision


def long_lock_holders(conn: Connection, longer_than: timedelta) -> Sequence[Row[Any]]:
    """Return sessions that hold locks in our schema, or advisory locks, for longer than that.

    Call it as the login, which sees its own sessions, and with `pg_read_all_stats` all.
    """
    conn.execute(text("SET LOCAL ROLE NONE"))
    return conn.execute(text(_LONG_LOCK_HOLDERS), {"long": longer_than}).all()
