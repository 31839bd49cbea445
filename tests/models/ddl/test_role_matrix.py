"""Tests of each role's rights to relations, columns and functions in the catalogue, against complete lists."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from models.db.database import APP_ROLE
from models.ddl import grants
from models.ddl.complete_metadata import metadata
from tests.plugins.servers import in_database, libpq_url
from workers.embedded.client import ServerUrls

SUBMIT, READER, WEB, PUBLIC = grants.SUBMIT_ROLE, grants.READER_ROLE, grants.WEB_ROLE, "public"
ROLES = (SUBMIT, READER, WEB, APP_ROLE, PUBLIC, *grants.DEFINERS)
RELATION_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

TABLES = {table.name for table in metadata.tables.values()}
VIEWS = {
    "command_answers",
    "v_fee_credit",
    "v_order_timeline",
    "v_request_status",
    "v_automation_forecast",
    "v_late_payment",
    "v_sweep_history",
    "v_unlock_forecast",
}
FUNCTIONS = {
    SUBMIT: {"submit_command"},
    READER: {"events_after"},
    WEB: {"submit_command", "events_after"},
    APP_ROLE: {"submit_command", "events_after", "feed_base"},
    PUBLIC: set(),
    "unwind_submit_definer": {"submit_command"},
    "unwind_feed_definer": {"events_after", "feed_base"},
}
RELATIONS: dict[str, dict[str, set[str]]] = {
    SUBMIT: {},
    PUBLIC: {},
    READER: {name: {"SELECT"} for name in {*TABLES, *VIEWS, "alembic_version"} - {*grants.PRIVATE_TO_READERS}},
    WEB: {
        **{
            name: {"SELECT"}
            for name in {*TABLES, *VIEWS, "alembic_version", "api_keys", "notices"}
            - ({*grants.PRIVATE_TO_READERS} - {"api_keys", "notices"})
        },
        "web_links": {"SELECT", "INSERT"},
    },
    APP_ROLE: {
        **{
            name: {"SELECT", "INSERT"}
            | (set() if name in grants.GRANTED_INSERT_ONLY else {"UPDATE"})
            | ({"DELETE"} if name in grants.DELETABLE else set())
            for name in TABLES
        },
        **{name: {"SELECT"} for name in (*VIEWS, *grants.READ_ONLY)},
    },
    "unwind_submit_definer": {"commands": {"SELECT"}, "submissions": {"SELECT", "INSERT"}},
    "unwind_feed_definer": {name: {"SELECT"} for name in ("events", "stock_moves", "ledger_lines", "bills")},
}
MEMBER_COLUMNS = (
    "member_id", "handle", "time_zone", "terminated_at", "buying_revoked_at", "selling_suspended_at", "reinstated_at",
    "automation",
)  # fmt: skip
COLUMNS: dict[str, set[str]] = {
    WEB: {
        "api_keys.last_used_at",  # to update
        *(f"members.{name}" for name in MEMBER_COLUMNS),
    },
    "unwind_submit_definer": {"removals.removal_id", "removals.order_id", "drafts.draft_id", "drafts.order_id"},
}
"""Columns of tables whose other columns are not readable."""
BEYOND_THE_CATALOGUE = (
    "NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)"
)


@pytest.fixture
def catalogue(servers: ServerUrls, database_url: str) -> Iterator[psycopg.Connection]:
    """A superuser in the test's database, who sees the rights of every role."""
    address = in_database(servers.admin_url, database_url.rpartition("/")[2])
    with psycopg.connect(libpq_url(address), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("role", ROLES)
def test_role_has_exactly_the_listed_rights_to_relations(catalogue: psycopg.Connection, role: str) -> None:
    rows = catalogue.execute(
        "SELECT c.relname, r FROM pg_class AS c CROSS JOIN unnest(%s::text[]) AS r "  # noqa: S608 - a constant
        f"WHERE c.relnamespace {BEYOND_THE_CATALOGUE} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND has_table_privilege(%s, c.oid, r)",
        [list(RELATION_RIGHTS), role],
    )
    rights_by_relation: dict[str, set[str]] = {}
    for name, right in rows:
        rights_by_relation.setdefault(name, set()).add(right)
    assert rights_by_relation == RELATIONS[role]


@pytest.mark.parametrize("role", ROLES)
def test_role_has_exactly_the_listed_rights_to_columns(catalogue: psycopg.Connection, role: str) -> None:
    """A right to a column is independent of the right to its table."""
    rows = catalogue.execute(
        "SELECT c.relname || '.' || a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "  # noqa: S608
        f"WHERE c.relnamespace {BEYOND_THE_CATALOGUE} AND NOT a.attisdropped "
        "AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
        "AND EXISTS (SELECT FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS r "
        "WHERE has_column_privilege(%(role)s, c.oid, a.attnum, r) AND NOT has_table_privilege(%(role)s, c.oid, r))",
        {"role": role},
    )
    assert {name for (name,) in rows} == COLUMNS.get(role, set())


@pytest.mark.parametrize("role", ROLES)
def test_role_may_call_exactly_the_listed_functions(catalogue: psycopg.Connection, role: str) -> None:
    rows = catalogue.execute(
        f"SELECT proname FROM pg_proc WHERE pronamespace {BEYOND_THE_CATALOGUE} "  # noqa: S608
        "AND has_function_privilege(%s, oid, 'EXECUTE')",
        [role],
    )
    assert {name for (name,) in rows} == FUNCTIONS[role]


@pytest.mark.parametrize("role", ROLES)
def test_role_may_call_no_restricted_server_functions(catalogue: psycopg.Connection, role: str) -> None:
    """Reading files, for example."""
    rows = catalogue.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace "
        "AND has_function_privilege(%s, oid, 'EXECUTE') AND NOT has_function_privilege('public', oid, 'EXECUTE')",
        [role],
    )
    assert rows.fetchall() == []


@pytest.mark.parametrize("role", ROLES)
def test_role_can_create_nothing(catalogue: psycopg.Connection, role: str) -> None:
    rows = catalogue.execute(
        "SELECT nspname, has_schema_privilege(%(role)s, oid, 'USAGE'), has_schema_privilege(%(role)s, oid, 'CREATE') "
        "FROM pg_namespace WHERE nspname NOT LIKE 'pg_temp%%' AND nspname NOT LIKE 'pg_toast%%'",
        {"role": role},
    )
    usable = {"pg_catalog", "information_schema", "public", *(() if role == PUBLIC else ("unwind",))}
    assert {(name, uses, makes) for name, uses, makes in rows if uses or makes} == {(n, True, False) for n in usable}
    (row,) = catalogue.execute(
        "SELECT array(SELECT r FROM unnest(ARRAY['CREATE', 'CONNECT', 'TEMPORARY']) AS r "
        "WHERE has_database_privilege(%s, current_database(), r))",
        [role],
    )
    assert row == (["CONNECT"],)


@pytest.mark.parametrize("role", ROLES)
def test_role_cannot_write_to_the_catalogue(catalogue: psycopg.Connection, role: str) -> None:
    """An update of `pg_settings` sets a session's own settings."""
    rows = catalogue.execute(
        "SELECT DISTINCT c.relname FROM pg_class AS c "
        "CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r "
        "WHERE c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) "
        "AND c.relkind IN ('r', 'v') AND has_table_privilege(%s, c.oid, r)",
        [role],
    )
    assert rows.fetchall() == [("pg_settings",)]


def test_role_has_no_attributes_and_no_memberships(catalogue: psycopg.Connection) -> None:
    rows = catalogue.execute(
        "SELECT rolname FROM pg_roles AS r WHERE rolname = ANY(%s) AND (rolcanlogin OR rolsuper OR rolcreaterole OR "
        "rolcreatedb OR rolreplication OR rolbypassrls OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid))",
        [list(grants.ROLES)],
    )
    assert rows.fetchall() == []
    parameters = catalogue.execute(
        "SELECT p.parname FROM pg_parameter_acl AS p CROSS JOIN aclexplode(p.paracl) AS a "
        "WHERE a.grantee = 0 OR a.grantee::regrole::text = ANY(%s)",
        [list(grants.ROLES)],
    )
    assert parameters.fetchall() == []


def test_view_over_private_tables_has_a_security_barrier(
    catalogue: psycopg.Connection,
) -> None:
    """Such a view has the security barrier; other views are security invokers."""
    rows = catalogue.execute(
        "SELECT c.relname, coalesce(c.reloptions, '{}') FROM pg_class AS c "
        "WHERE c.relnamespace = 'unwind'::regnamespace AND c.relkind = 'v'"
    ).fetchall()
    as_owner, as_reader = ["security_barrier=true"], ["security_invoker=true"]
    assert dict(rows) == {
        "command_answers": as_owner,
        "v_fee_credit": as_owner,
        "v_request_status": as_owner,
        "v_order_timeline": as_reader,
        "v_automation_forecast": as_reader,
        "v_late_payment": as_reader,
        "v_sweep_history": as_reader,
        "v_unlock_forecast": as_reader,
    }
