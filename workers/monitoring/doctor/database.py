"""Checks of the database: answers, schema, rights, pooler, durability, clock and connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import NullPool
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from models import migrations, submissions
from models.db import database as db
from models.db.database import APP_ROLE, make_engine
from models.db.driver import is_pooled, keeps_prepared_statements
from models.db.postgres_address import PostgresAddress
from models.db.session_settings import PooledSessionRefused, SessionSettingsRefused, session_settings_not_in_force
from models.ddl.grants import DEFINERS
from models.monitoring import server_info
from models.monitoring.server_info import fact
from policies.texts import pluralize
from tasks.declarations import all_commands
from workers.local.process_specs import WORKER_GROUPS
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import NO_ACTION, Finding, error, finding_names, note, warning

MAX_CLOCK_SKEW = 2.0  # seconds: only the database's clock decides what is due, the others when it is noticed
LOCKS_HELD_AFTER = timedelta(minutes=1)
EXTRA_WORKER_CONNECTIONS = 1  # of a worker group besides one per process: it records dead letters
OTHER_CONNECTIONS = 4  # the submissions listener, a migration, and two read-only commands such as this one


def connect_to_database(context: Context) -> Iterator[Finding]:
    url = context.settings.work_url
    if url is None:
        return
    connected = db.connect(url.get_secret_value())
    context.connections.callback(connected.dispose)
    try:
        with connected.transaction() as conn:
            context.has_schema = server_info.schema_revision(conn) is not None
        context.database = connected
    except SQLAlchemyError as problem:
        refused = getattr(problem, "orig", None)
        if isinstance(refused, SessionSettingsRefused):
            yield error(refused.code, f"{refused}.", refused.fix)
            return
        reason = str(refused or type(problem).__name__).strip().splitlines()[0]
        reason = PostgresAddress.parse(url.get_secret_value()).without_password(reason).rstrip(".")
        message = f"The database does not answer: {reason}."
        yield error("DATABASE_UNREACHABLE", message, "start PostgreSQL or correct DATABASE_URL.")


def check_database_schema(context: Context) -> Iterator[Finding]:
    revision, head = server_info.schema_revision(context.conn), migrations.head_revision()
    if revision is None:
        yield error("SCHEMA_MISSING", "The database has no Unwind tables.", "run ./run migrate.")
    elif revision != head:
        message = f"The schema is at revision {revision}; this program needs {head}."
        yield error("SCHEMA_NOT_AT_HEAD", message, "run ./run migrate, or use the release that fits the schema.")
    elif differences := migrations.migrated_schema_differences(context.conn):
        places = pluralize(len(differences), "place", "places")
        message = f"The tables differ from revision {head} in {places}: they were changed by hand."
        fix = "undo the changes, or create an empty database, ./run migrate it and restore a backup."
        yield error("SCHEMA_DIFFERS", message, fix)
    elif names := submissions.missing_commands(context.conn, all_commands()):
        message = f"The SQL interface refuses commands of this version: {finding_names(names)}."
        yield error("COMMANDS_MISSING", message, "run ./run migrate.")


def check_database_rights(context: Context) -> Iterator[Finding]:
    if not context.has_schema or not fact(context.conn, server_info.CAN_CHANGE_APPEND_ONLY_TABLES):
        return
    if context.settings.app_database_url is not None:
        message = "The login of UNWIND_APP_DATABASE_URL may change final rows; only triggers prevent that."
        yield warning("HISTORY_UNGUARDED", message, f"grant that login the role {APP_ROLE} and nothing else.")
    elif not fact(context.conn, server_info.HAS_ROLE, role=APP_ROLE):
        message = (
            f"There is no role {APP_ROLE}, so the program runs as the owner; only triggers prevent changes "
            "to final rows."
        )
        fix = f"as an administrator: CREATE ROLE {APP_ROLE} NOLOGIN; then ./run migrate."
        yield warning("ROLE_MISSING", message, fix)
    else:
        message = f"The login of DATABASE_URL may not become {APP_ROLE}; only triggers prevent changes to final rows."
        fix = f"as an administrator: GRANT {APP_ROLE} TO the login of DATABASE_URL."
        yield warning("ROLE_NOT_GRANTED", message, fix)


def check_definers(context: Context) -> Iterator[Finding]:
    # SECURITY DEFINER functions run with their owner's rights, so that owner should have few.
    if not context.has_schema:
        return
    if names := fact(context.conn, server_info.FUNCTIONS_RUNNING_AS_OWNER):
        message = f"These functions run with all rights of the tables' owner: {finding_names(names)}."
        roles = "; ".join(f"CREATE ROLE {role} NOLOGIN; GRANT {role} TO the login of DATABASE_URL" for role in DEFINERS)
        yield warning("DEFINERS_OF_THE_OWNER", message, f"as an administrator: {roles}; then ./run migrate.")
    if fact(context.conn, server_info.PUBLIC_CAN_CREATE_TEMPORARY_OBJECTS):
        message = "Every login may create temporary objects in this database."
        name = context.conn.engine.url.database
        fix = f"as an administrator: REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;"
        yield warning("TEMPORARY_OBJECTS_ALLOWED", message, fix)


def check_locks(context: Context) -> Iterator[Finding]:
    if holders := server_info.long_lock_holders(context.conn, LOCKS_HELD_AFTER):
        sessions = (
            f"session {h.pid} of {h.login} ({h.application or 'unnamed'}), since {h.since:%H:%M:%S}" for h in holders
        )
        message = f"Locks have been held for more than a minute by {finding_names(sessions)}."
        fix = f"let it commit, or end the session as an administrator: SELECT pg_terminate_backend({holders[0].pid});"
        yield warning("LOCKS_HELD", message, fix)


def check_session_settings(context: Context) -> Iterator[Finding]:
    with contextlib.ExitStack() as stack:
        connections = [context.conn]
        if not is_pooled(context.conn):
            url = context.settings.work_url
            assert url is not None
            databases = [db.connect(url.get_secret_value()) for _ in range(2)]
            for database in databases:
                stack.callback(database.dispose)
                with database.transaction():  # a pooler that was not recognized serves both by one process
                    pass
            connections = [stack.enter_context(database.transaction()) for database in databases]
        names = {name for conn in connections for name in session_settings_not_in_force(conn)}
    if names:
        message = f"Settings of a connection do not reach each of its transactions: {finding_names(sorted(names))}."
        yield error("SETTINGS_NOT_IN_FORCE", message, "let DATABASE_URL name PostgreSQL itself, or PgBouncer.")


def check_pooler(context: Context) -> Iterator[Finding]:
    url = context.settings.direct_database_url
    pooled = is_pooled(context.conn)
    if url is None and pooled:
        message = "DATABASE_URL leads to a pooler, and notifications, migrations and backups need a direct connection."
        yield error("POOLER_WITHOUT_DIRECT_URL", message, PooledSessionRefused().fix)
    elif url is not None and (wrong := _problem_of_direct_url(context, url.get_secret_value())):
        yield wrong
    elif pooled and keeps_prepared_statements(context.conn):
        yield note("POOLER", "DATABASE_URL leads to a pooler that keeps prepared statements.", NO_ACTION)
    elif pooled:
        message = "DATABASE_URL leads to a pooler that keeps no prepared statements: each is planned again."
        yield note("POOLER", message, "PgBouncer 1.21 or newer keeps them, with max_prepared_statements = 200.")


def _problem_of_direct_url(context: Context, url: str) -> Finding | None:
    try:
        with make_engine(url, poolclass=NullPool).begin() as conn:
            if is_pooled(conn):
                message = "UNWIND_DIRECT_DATABASE_URL leads to a pooler."
                return error("DIRECT_URL_POOLED", message, "let it name PostgreSQL itself.")
            if fact(conn, server_info.SERVER_IDENTITY) != fact(context.conn, server_info.SERVER_IDENTITY):
                message = "UNWIND_DIRECT_DATABASE_URL leads to another database than DATABASE_URL."
                return error("DIRECT_URL_ELSEWHERE", message, "let it name the database behind the pooler.")
    except OperationalError:
        message = "UNWIND_DIRECT_DATABASE_URL cannot be used: SQL commands wait for a sweep, HTTP answers time out."
        return error("DIRECT_URL_UNREACHABLE", message, "correct it, or let PostgreSQL admit this host.")
    return None


def check_standby(context: Context) -> Iterator[Finding]:
    url = context.settings.database_url
    if fact(context.conn, server_info.IS_STANDBY):
        fix = "let DATABASE_URL name the primary or all hosts: postgresql://user:password@h1:5432,h2:5432/unwind"
        yield error("DATABASE_IS_STANDBY", "The database is a standby, which accepts no writes.", fix)
    elif url is None or len(PostgresAddress.parse(url.get_secret_value()).hosts) < 2:
        return
    elif fact(context.conn, server_info.HAS_SYNCHRONOUS_STANDBY):
        message = "A standby has every commit before it is answered, so a failover loses none."
        yield note("STANDBY_SYNCHRONOUS", message, NO_ACTION)
    else:
        message = "No standby is synchronous: a failover loses the last answered commands without notice."
        fix = "set synchronous_standby_names on the primary, and synchronous_commit = on."
        yield warning("STANDBY_ASYNCHRONOUS", message, fix)


def check_durability(context: Context) -> Iterator[Finding]:
    if names := fact(context.conn, server_info.UNSAFE_DURABILITY_SETTINGS):
        message = f"{finding_names(names)}: answered commands are lost when the server's machine fails."
        yield warning("DATABASE_NOT_DURABLE", message, "turn them on for the server, the database and the login.")


def check_database_clock(context: Context) -> Iterator[Finding]:
    before = context.clock()
    database_time = db.DatabaseClock().now(context.conn).timestamp()
    yield from compare_clocks("This machine's clock", context.clock(), database_time, context.clock() - before)


def compare_clocks(name: str, time: float, database_time: float, elapsed: float) -> Iterator[Finding]:
    skew = time - database_time
    if abs(skew) - elapsed > MAX_CLOCK_SKEW:
        message = f"{name} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the database's."
        yield warning("CLOCKS_DIFFER", message, "synchronise all machines by NTP (chrony or systemd-timesyncd).")


def check_connections(context: Context) -> Iterator[Finding]:
    allowed = fact(context.conn, server_info.CONNECTIONS_ALLOWED)
    used = fact(context.conn, server_info.CONNECTIONS_USED)
    needed = len(WORKER_GROUPS) * (context.settings.concurrency + EXTRA_WORKER_CONNECTIONS) + OTHER_CONNECTIONS
    fix = "raise max_connections of PostgreSQL or lower UNWIND_CONCURRENCY."
    if needed > allowed:
        message = f"The processes need up to {needed} connections; the database allows {allowed}."
        yield warning("CONNECTIONS_TOO_FEW", message, fix)
    elif used >= 0.9 * allowed:
        message = f"{used} of the database's {allowed} connections are in use."
        yield warning("CONNECTIONS_NEARLY_USED", message, fix)
