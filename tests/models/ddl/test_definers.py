"""Tests of SECURITY DEFINER functions: a caller cannot make them run code or use tables of its own."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from models.ddl import grants
from tests.plugins.servers import in_database, libpq_url
from workers.embedded.client import ServerUrls

CALLS = {
    grants.SUBMIT_ROLE: (
        "SELECT unwind.submit_command('orders.options', '{\"order_id\": 1, \"member_id\": \"s\"}', 'one')"
    ),
    grants.READER_ROLE: "SELECT * FROM unwind.events_after(NULL, 10)",
}
TYPES = (
    "text",
    "jsonb",
    "json",
    "bigint",
    "int8",
    "integer",
    "int4",
    "boolean",
    "bool",
    "uuid",
    "timestamptz",
    "oid",
    "xid8",
)
"""The types that a function may name. A domain of that name in `pg_temp` runs its CHECK as the role that uses it."""


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """The owner of the test's database."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture(params=CALLS)
def attacker(
    request: pytest.FixtureRequest, servers: ServerUrls, admin: psycopg.Connection, database_url: str
) -> Iterator[psycopg.Connection]:
    """A login with one of the application's roles and nothing else."""
    url = make_url(libpq_url(database_url))
    name = f"attacker_of_{url.database}"
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'attack'").format(sql.Identifier(name)))
    admin.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(request.param), sql.Identifier(name)))
    address = url.set(username=name, password="attack").render_as_string(hide_password=False)
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            yield connection
    finally:
        with psycopg.connect(
            libpq_url(in_database(servers.admin_url, str(url.database))), autocommit=True
        ) as superuser:
            superuser.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def call(request: pytest.FixtureRequest) -> str:
    """The statement that the attacker's role may execute."""
    return CALLS[request.node.callspec.params["attacker"]]


def test_roles_cannot_create_temporary_objects(attacker: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        attacker.execute("CREATE TEMP TABLE mine (x int)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        attacker.execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text")


def test_temporary_types_of_a_caller_are_not_used(
    attacker: psycopg.Connection, owner: psycopg.Connection, call: str
) -> None:
    """`pg_temp` is searched last, so this holds even where everybody may create temporary objects."""
    _grant_temporary_to_public(owner)
    attacker.execute("CREATE TEMP TABLE calls (role pg_catalog.text)")
    attacker.execute("GRANT ALL ON pg_temp.calls TO PUBLIC")
    attacker.execute(
        """
        CREATE FUNCTION pg_temp.note(anyelement) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO pg_temp.calls VALUES (current_user); RETURN true; END $$
        """
    )
    for name in TYPES:
        attacker.execute(
            sql.SQL("CREATE DOMAIN pg_temp.{0} AS pg_catalog.{1} CHECK (pg_temp.note(VALUE))").format(
                sql.Identifier(name), sql.SQL({"bigint": "int8", "integer": "int4", "boolean": "bool"}.get(name, name))
            )
        )
    attacker.execute("SELECT 'x'::pg_temp.text")
    assert attacker.execute("DELETE FROM pg_temp.calls").rowcount == 1  # the trap works
    attacker.execute(call)
    assert attacker.execute("SELECT DISTINCT role FROM pg_temp.calls").fetchall() == []


def test_temporary_tables_of_a_caller_are_not_used(
    attacker: psycopg.Connection, owner: psycopg.Connection, call: str
) -> None:
    _grant_temporary_to_public(owner)
    names = owner.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND (relnamespace = 'unwind'::regnamespace "
        "OR relname IN ('pg_locks', 'pg_stat_activity'))"
    ).fetchall()
    for (name,) in names:
        attacker.execute(sql.SQL("CREATE TEMP TABLE {} (x int)").format(sql.Identifier(name)))
        attacker.execute(sql.SQL("REVOKE ALL ON pg_temp.{} FROM PUBLIC").format(sql.Identifier(name)))
    attacker.execute(call)


def test_owner_of_a_definer_has_no_other_rights(admin: psycopg.Connection, owner: psycopg.Connection) -> None:
    """Limits the damage if a function is ever made to run its caller's code."""
    for role, (function, _) in grants.DEFINERS.items():
        assert owner.execute(
            "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE oid = %s::regprocedure", [function]
        ).fetchone() == (role,)
        row = admin.execute(
            "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, "
            "EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) FROM pg_roles AS r WHERE rolname = %s",
            [role],
        ).fetchone()
        assert row == (False,) * 7
        owned = owner.execute("SELECT count(*) FROM pg_class WHERE relowner = %s::regrole", [role]).fetchone()
        assert owned == (0,)
        assert not _may(owner, role, "has_schema_privilege", "unwind", "CREATE")
        assert not _may(owner, role, "has_column_privilege", "unwind.members", "email", "SELECT")


def test_definers_are_listed_and_search_pg_catalog_first(owner: psycopg.Connection) -> None:
    definers = owner.execute(
        "SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner), p.proconfig FROM pg_proc AS p "
        "WHERE p.prosecdef AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
    ).fetchall()
    path = ["search_path=pg_catalog, pg_temp"]
    assert sorted(definers) == sorted(
        (function.replace(", ", ","), role, path) for role, (function, _) in grants.DEFINERS.items()
    )


def test_no_function_uses_its_callers_search_path(owner: psycopg.Connection) -> None:
    """Triggers run as the role that changes the row, the owner included."""
    functions = owner.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'unwind'::regnamespace AND "
        "prosqlbody IS NULL "
        "AND proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']"
    ).fetchall()
    assert functions == []


def _may(conn: psycopg.Connection, role: str, function: str, *arguments: str) -> bool:
    places = sql.SQL(", ").join(sql.Placeholder() * (1 + len(arguments)))
    row = conn.execute(sql.SQL("SELECT {}({})").format(sql.SQL(function), places), [role, *arguments]).fetchone()
    assert row is not None
    return bool(row[0])


def _grant_temporary_to_public(owner: psycopg.Connection) -> None:
    owner.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO PUBLIC").format(sql.Identifier(owner.info.dbname)))
