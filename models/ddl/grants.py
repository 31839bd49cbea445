"""The database roles and their rights.

The application acts as `unwind_app`, which cannot change append-only tables.  Where a login may not create roles, the
triggers (models/ddl/triggers.py) protect the data alone.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from models import feed
from models.db.database import APP_ROLE
from models.ddl import submit_command, views

SUBMIT_ROLE = "unwind_submit"
"""For producers that submit commands by SQL: may only call `submit_command`."""
READER_ROLE = "unwind_reader"
"""For dashboards: reads everything but private tables, changes nothing."""
WEB_ROLE = "unwind_web"
"""For the HTTP interface: submits commands by `submit_command`, reads what it answers, changes nothing else."""

GRANTED_INSERT_ONLY = ("events", "ledger_lines", "stock_moves", "bills", "billing_months", "requests", "terms")
"""Tables in which the application may only insert."""
READ_ONLY = ("alembic_version", "commands")
"""Tables that only migrations write."""
DELETABLE = ("lots", "dead_letters", "held_bills")
"""Tables from which the application may delete."""
DEFINERS = {
    "unwind_submit_definer": (
        submit_command.SUBMIT_COMMAND_SIGNATURE,
        (
            "SELECT ON unwind.commands",
            "SELECT, INSERT ON unwind.submissions",
            "SELECT (removal_id, order_id) ON unwind.removals",
            "SELECT (draft_id, order_id) ON unwind.drafts",
        ),
    ),
    "unwind_feed_definer": (
        feed.EVENTS_AFTER_SIGNATURE,
        (*(f"SELECT ON unwind.{table}" for table in feed.FEED_TABLES), "EXECUTE ON FUNCTION unwind.feed_base()"),
    ),
}
"""The owner of each SECURITY DEFINER function: a role without login that has only the rights the function needs."""
ROLES = (APP_ROLE, SUBMIT_ROLE, READER_ROLE, WEB_ROLE, *DEFINERS)

INTERFACE_GRANTS = {
    f"FUNCTION {submit_command.SUBMIT_COMMAND_SIGNATURE}": ("EXECUTE", (APP_ROLE, SUBMIT_ROLE, WEB_ROLE)),
    f"FUNCTION {submit_command.SUBMIT_JSONB_SIGNATURE}": ("EXECUTE", (APP_ROLE, SUBMIT_ROLE)),
    f"FUNCTION {feed.EVENTS_AFTER_SIGNATURE}": ("EXECUTE", (APP_ROLE, READER_ROLE, WEB_ROLE)),
    "FUNCTION unwind.feed_base()": ("EXECUTE", (APP_ROLE,)),
    "unwind.command_answers": ("SELECT", (APP_ROLE, READER_ROLE, WEB_ROLE)),
    **{f"unwind.{view.name}": ("SELECT", (APP_ROLE, READER_ROLE, WEB_ROLE)) for view in views.VIEWS},
    "unwind.api_keys": ("SELECT, UPDATE (last_used_at)", (WEB_ROLE,)),
    "unwind.web_links": ("SELECT, INSERT", (WEB_ROLE,)),
    "unwind.members": (
        (
            "SELECT (member_id, handle, time_zone, terminated_at, buying_revoked_at, selling_suspended_at, "
            "reinstated_at, automation)"
        ),
        (WEB_ROLE,),
    ),
    "unwind.notices": ("SELECT", (WEB_ROLE,)),
}
"""The functions and views that other roles may use, and what the HTTP interface may do with private tables: it cannot
read members' addresses."""
PRIVATE_LOCK_TABLES = ("item_locks", "ledger_locks", "named_locks")
PRIVATE_TO_READERS = (
    "members",
    "notices",
    "requests",
    "dead_jobs",
    "outbox",
    "submissions",
    "dead_letters",
    "api_keys",
    "web_links",
    "webhooks",
    *PRIVATE_LOCK_TABLES,
)
"""Tables that hold addresses, emails and arguments, and the lock tables."""


def _create_role(name: str) -> str:
    # SQL that creates a role and grants it to this login; a failure is only a notice. Roles belong to the whole server,
    # so two migrations at once may both try. Since PostgreSQL 16 membership alone does not allow SET ROLE; older
    # versions have no such privilege.
    return f"""
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
            CREATE ROLE {name} NOLOGIN;
        END IF;
        IF NOT pg_has_role(current_user, '{name}',
            CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
            EXECUTE format('GRANT {name} TO %I', current_user);
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation OR insufficient_privilege OR undefined_object OR internal_error THEN
        RAISE NOTICE 'role {name} was not created by this migration: %', SQLERRM;
    END $$
    """


def role_statements() -> tuple[str, ...]:
    """Return SQL that creates missing roles; no dump holds them, as they belong to the server."""
    return tuple(_create_role(name) for name in ROLES)


def grant_rights(conn: Connection) -> None:
    """Create the roles and grant their rights on the present tables.

    Every migration repeats it, so a restored database and a role created later get their rights too.
    """
    for statement in (*role_statements(), *REVOCATIONS_FROM_PUBLIC):
        conn.execute(text(statement))
    roles = set(conn.execute(text("SELECT rolname FROM pg_roles")).scalars())
    tables = set(conn.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'unwind'")).scalars())
    for role in ROLES:
        if role in roles:
            for statement in _rights_of_role(role, tables):
                conn.execute(text(statement))


def _rights_of_role(role: str, tables: set[str]) -> list[str]:
    if role in DEFINERS:
        return [_transfer_ownership(role, *DEFINERS[role])]
    public = tables - {*PRIVATE_TO_READERS}
    statements = [f"GRANT USAGE ON SCHEMA unwind TO {role}"]
    if role == APP_ROLE:
        writable = tables - {*READ_ONLY}
        statements += [
            f"REVOKE ALL ON {_qualified_names(tables)} FROM {role}",
            f"GRANT SELECT ON {_qualified_names(tables)} TO {role}",
            f"GRANT INSERT ON {_qualified_names(writable)} TO {role}",
            f"GRANT UPDATE ON {_qualified_names(writable - {*GRANTED_INSERT_ONLY})} TO {role}",
            f"GRANT DELETE ON {_qualified_names({*DELETABLE})} TO {role}",
            f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA unwind TO {role}",
        ]
    if role in (READER_ROLE, WEB_ROLE):
        statements += [
            f"REVOKE ALL ON {_qualified_names(public)} FROM {role}",
            f"GRANT SELECT ON {_qualified_names(public)} TO {role}",
        ]
    interfaces = INTERFACE_GRANTS.items()
    return statements + [f"GRANT {right} ON {name} TO {role}" for name, (right, roles) in interfaces if role in roles]


def _qualified_names(tables: set[str]) -> str:
    return ", ".join(f'unwind."{name}"' for name in sorted(tables))


REVOCATIONS_FROM_PUBLIC = (
    "REVOKE ALL ON SCHEMA unwind FROM PUBLIC",
    "REVOKE ALL ON ALL ROUTINES IN SCHEMA unwind FROM PUBLIC",
    # A temporary object can shadow a name that another statement looks up; this product creates none.
    """
    DO $$ BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'PUBLIC may still create temporary objects in this database: %', SQLERRM;
    END $$
    """,
)


def _transfer_ownership(role: str, function: str, grants: tuple[str, ...]) -> str:
    # SQL that makes a role the owner of a function; for that moment the role needs CREATE on the schema. If this login
    # may not use the role, the owner of the tables keeps the function, and the doctor reports it.
    granted = "".join(f"GRANT {grant} TO {role};\n        " for grant in grants)
    return f"""
    DO $$ BEGIN
        GRANT USAGE, CREATE ON SCHEMA unwind TO {role};
        {granted}ALTER FUNCTION {function} OWNER TO {role};
        REVOKE CREATE ON SCHEMA unwind FROM {role};
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'function {function} still belongs to the owner of the tables, not to {role}: %', SQLERRM;
    END $$
    """
