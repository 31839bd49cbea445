"""Is the database ours to work with?  Schema, rights, clock, connections."""

from __future__ import annotations

from datetime import timedelta

from workers.local.process_specs import WORKER_GROUPS
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, abbreviate, error, note, warning

MAX_CLOCK_SKEW = 2.0
"""Seconds (F34, F50): the database's clock decides what is owed, the others only when something is looked at."""
LOCKS_HELD_AFTER = timedelta(minutes=1)
BESIDES_CHILDREN = 1
"""Connections of a worker group besides one per process: that which keeps odd messages."""
OF_THE_HOUSE = 4
"""The listener for submissions, a migration, and two commands that look at something (such as this one)."""


def check_schema(place: Context) -> list[Finding]:
    """At the newest revision, and really as that revision made it."""
    from models import migrations
    from models.monitoring import server_info

    found, head = server_info.schema_revision(place.conn), server_info.head_revision()
    if found is None:
        return [error("SCHEMA_MISSING", "The database has no tables of ours.", "./run migrate")]
    if found != head:
        said = f"The schema is at revision {found}, this program needs {head}."
        return [
            error("SCHEMA_NOT_AT_HEAD", said, "./run migrate (or the release of the program that fits the schema).")
        ]
    if differences := migrations.schema_differences(place.conn):
        said = f"The tables differ from revision {head} in {len(differences)} places, so somebody changed them by hand."
        return [error("SCHEMA_DIFFERS", said, "restore the tables, or make the database anew and ./run migrate.")]
    return []


def check_rights(place: Context) -> list[Finding]:
    """Triggers guard what is final whoever acts; the role is the second lock (promises.md P5)."""
    from models.db.database import APP_ROLE
    from models.monitoring import server_info

    if not place.has_schema or not server_info.can_change_append_only_tables(place.conn):
        return []
    if place.settings.app_database_url is not None:
        said = "The login of UNWIND_APP_DATABASE_URL may rewrite history; only triggers keep it from that."
        return [warning("HISTORY_UNGUARDED", said, f"give that login the role {APP_ROLE} and nothing else.")]
    if not server_info.role_exists(place.conn):
        said = f"There is no role {APP_ROLE}, so the program acts as the owner; only triggers keep it from rewriting history."
        return [
            warning("ROLE_MISSING", said, f"as an administrator: CREATE ROLE {APP_ROLE} NOLOGIN; then ./run migrate.")
        ]
    said = (
        f"The login of DATABASE_URL may not become {APP_ROLE}; only triggers keep the program from rewriting history."
    )
    return [warning("ROLE_NOT_GRANTED", said, f"as an administrator: GRANT {APP_ROLE} TO the login of DATABASE_URL.")]


def check_definers(place: Context) -> list[Finding]:
    """What a function does for its callers it does with its owner's rights, so that owner should have few."""
    if not place.has_schema:
        return []
    from models.ddl.grants import DEFINERS
    from models.monitoring import server_info

    found = []
    if names := server_info.functions_running_as_owner(place.conn):
        said = f"These functions act with all rights of the tables' owner: {abbreviate(names)}."
        roles = "; ".join(f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO the login of DATABASE_URL" for role in DEFINERS)
        found.append(warning("DEFINERS_OF_THE_OWNER", said, f"as an administrator: {roles}; then ./run migrate."))
    if server_info.public_can_create_temporary_objects(place.conn):
        said = "Every login may make temporary objects in this database."
        name = place.conn.engine.url.database
        fix = f"as an administrator: REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;"
        found.append(warning("TEMPORARY_OBJECTS_ALLOWED", said, fix))
    return found


def check_locks(place: Context) -> list[Finding]:
    """Our own transactions end within seconds; whoever holds rows for longer holds commands up."""
    from models.monitoring import server_info

    holders = server_info.long_lock_holders(place.conn, LOCKS_HELD_AFTER)
    if not holders:
        return []
    named = [f"session {h.pid} of {h.login} ({h.application or 'unnamed'}), since {h.since:%H:%M:%S}" for h in holders]
    said = f"Locks are held for longer than a minute by {abbreviate(named)}."
    fix = f"let it commit, or end it as an administrator: SELECT pg_terminate_backend({holders[0].pid});"
    return [warning("LOCKS_HELD", said, fix)]


def check_pooler(place: Context) -> list[Finding]:
    """A pooler that changes server connections between transactions takes a session's settings, role and LISTEN away."""
    from models.db import database as db
    from models.monitoring import server_info

    if not server_info.is_behind_pooler(place.conn):
        return []
    url = place.settings.app_database_url or place.settings.database_url
    assert url is not None
    idle, busy = (db.connect(url.get_secret_value()) for _ in range(2))
    try:
        with (
            idle.transaction() as conn
        ):  # its connection stays open afterwards, and in a session so does the server's process
            mine = server_info.backend_pid(conn)
        with busy.transaction() as conn:
            shared = server_info.backend_pid(conn) == mine
    finally:
        idle.dispose()
        busy.dispose()
    if shared:
        said = "DATABASE_URL leads through a pooler that gives a server connection to each transaction."
        fix = "pool_mode = session for this database (PgBouncer), or let DATABASE_URL name PostgreSQL itself."
        return [error("POOLER_BY_TRANSACTION", said, fix)]
    said = "DATABASE_URL leads through a pooler; it pools sessions, as it must."
    return [note("POOLER", said, "leave pool_mode = session, and let its pool be as large as the processes need.")]


def check_standby(place: Context) -> list[Finding]:
    """A server that only follows another takes no commands."""
    from models.monitoring import server_info

    if not server_info.is_standby(place.conn):
        return []
    fix = "let DATABASE_URL name the primary, or all hosts: postgresql://user:password@h1:5432,h2:5432/unwind"
    return [error("DATABASE_IS_STANDBY", "The database is a standby, which takes no commands.", fix)]


def check_durability(place: Context) -> list[Finding]:
    """An answer is given when its commit is on disk; a server, database or role may be set to say so before."""
    from models.monitoring import server_info

    found = server_info.unsafe_durability_settings(place.conn)
    if not found:
        return []
    said = f"{abbreviate(found)}: answered commands are lost when the server's machine fails."
    return [warning("DATABASE_NOT_DURABLE", said, "set them on, for the server, the database and the login.")]


def check_clock(place: Context) -> list[Finding]:
    """This machine's clock against the database's, less what the question took."""
    from models.monitoring import server_info

    before = place.clock()
    there = server_info.wall_clock(place.conn).timestamp()
    return compare_clocks("This machine's clock", place.clock(), there, place.clock() - before)


def compare_clocks(whose: str, here: float, there: float, took: float) -> list[Finding]:
    """A finding when a clock differs from the database's by more than can be explained.  All in seconds."""
    skew = here - there
    if abs(skew) - took <= MAX_CLOCK_SKEW:
        return []
    said = f"{whose} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the database's."
    return [warning("CLOCKS_DIFFER", said, "let all machines keep time by NTP (chrony or systemd-timesyncd).")]


def check_connections(place: Context) -> list[Finding]:
    """What all processes need together, against what the server takes (F49)."""
    from models.monitoring import server_info

    there = server_info.connections(place.conn)
    needed = len(WORKER_GROUPS) * (place.settings.concurrency + BESIDES_CHILDREN) + OF_THE_HOUSE
    fix = "raise max_connections of PostgreSQL, or lower UNWIND_CONCURRENCY."
    if needed > there.allowed:
        said = f"The processes need up to {needed} connections, the database takes {there.allowed}."
        return [warning("CONNECTIONS_TOO_FEW", said, fix)]
    if there.used >= 0.9 * there.allowed:
        said = f"{there.used} of the database's {there.allowed} connections are in use."
        return [warning("CONNECTIONS_NEARLY_USED", said, fix)]
    return []
