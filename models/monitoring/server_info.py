"""Facts about the database server: schema revision, connections, roles and settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from models.db.database import APP_ROLE


@dataclass(frozen=True, slots=True)
class Connections:
    allowed: int
    used: int


def schema_revision(conn: Connection) -> str | None:
    if not conn.execute(text("SELECT to_regclass('unwind.alembic_version') IS NOT NULL")).scalar():
        return None
    return conn.execute(text("SELECT max(version_num) FROM unwind.alembic_version")).scalar()


def server_has_app_role(conn: Connection) -> bool:
    rows = conn.execute(text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)"), {"role": APP_ROLE})
    return bool(rows.scalar())


def can_change_append_only_tables(conn: Connection) -> bool:
    return bool(conn.execute(text("SELECT has_table_privilege('unwind.events', 'UPDATE, DELETE')")).scalar())


def functions_running_as_owner(conn: Connection) -> list[str]:
    """Return the functions that run with the rights of the tables' owner; a role with few rights should own each."""
    rows = conn.execute(
        text(
            "SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
            "WHERE n.nspname = 'unwind' AND p.prosecdef AND p.proowner = n.nspowner ORDER BY 1"
        )
    )
    return list(rows.scalars())


def public_can_create_temporary_objects(conn: Connection) -> bool:
    rows = conn.execute(text("SELECT has_database_privilege('public', current_database(), 'TEMPORARY')"))
    return bool(rows.scalar())


@dataclass(frozen=True, slots=True)
class LockHolder:
    pid: int
    login: str
    application: str
    since: datetime


def long_lock_holders(conn: Connection, longer_than: timedelta) -> list[LockHolder]:
    """Return sessions that hold locks in our schema, or advisory locks, for longer than that.

    Call it as the login, which sees its own sessions, and with `pg_read_all_stats` all.
    """
    conn.execute(text("SET LOCAL ROLE NONE"))
    rows = conn.execute(
        text(
            "SELECT a.pid, a.usename, a.application_name, coalesce(a.xact_start, a.state_change) AS since "
            "FROM pg_stat_activity AS a WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() "
            "AND coalesce(a.xact_start, a.state_change) < clock_timestamp() - CAST(:long AS interval) "
            "AND EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.granted AND (l.locktype = 'advisory' "
            "OR l.mode <> 'AccessShareLock' AND l.relation IN "
            "(SELECT c.oid FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('unwind')))) ORDER BY since"
        ),
        {"long": longer_than},
    )
    return [LockHolder(r.pid, r.usename, r.application_name, r.since) for r in rows]


def connections(conn: Connection) -> Connections:
    row = conn.execute(
        text(
            "SELECT CAST(current_setting('max_connections') AS integer)"
            " - CAST(current_setting('superuser_reserved_connections') AS integer)"
            " - COALESCE(CAST(current_setting('reserved_connections', true) AS integer), 0) AS allowed,"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used"
        )
    ).one()
    return Connections(row.allowed, row.used)


def server_identity(conn: Connection) -> tuple[datetime, int]:
    """Return what tells two databases apart: two servers do not start in the same microsecond."""
    query = text("SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()")
    start, oid = conn.execute(query).one()
    return start, oid


def is_standby(conn: Connection) -> bool:
    return bool(conn.execute(text("SELECT pg_is_in_recovery()")).scalar())


def has_synchronous_standby(conn: Connection) -> bool:
    query = text(
        "SELECT current_setting('synchronous_standby_names') <> ''"
        " AND current_setting('synchronous_commit') IN ('on', 'remote_apply', 'remote_write')"
    )
    return bool(conn.execute(query).scalar())


def unsafe_durability_settings(conn: Connection) -> list[str]:
    rows = conn.execute(
        text(
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
            " AND setting = 'off' AND source <> 'command line' ORDER BY name"
        )
    )
    return [f"{row.name} = off" for row in rows]
