"""Sessions have our settings, whatever those of the role, the database and the environment are."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from datetime import UTC, timedelta

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from models.db import database as db
from models.db import session_settings as settings
from models.db.postgres_address import PostgresAddress
from models.migrations import upgrade
from tests.plugins.postgres import USER, PostgresServer, new_server
from tests.plugins.servers import libpq_url

CONTRADICTING = {
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-3",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "evil, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "idle_session_timeout": "150ms",
    "statement_timeout": "100ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "100ms",
    "client_encoding": "LATIN1",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "random_page_cost": "1000",
    "jit": "on",
    "role": "pg_monitor",
}


@pytest.fixture(params=["ROLE {login}", "DATABASE {name}", "ROLE {login} IN DATABASE {name}"])
def contradicting_url(request: pytest.FixtureRequest, other_server: PostgresServer) -> Iterator[str]:
    """A database whose settings, or whose login's, all differ from what the application needs."""
    name, login = "contradicting", "contradicting_login"
    target = request.param.format(name=name, login=login)
    with other_server.connect() as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        conn.execute(f"CREATE ROLE {login} LOGIN SUPERUSER PASSWORD 'x'")
        upgrade(other_server.url(name))
        with other_server.connect(name) as owner:
            owner.execute("CREATE SCHEMA evil")
            owner.execute(
                "CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS "
                "$$ SELECT 'shadowed' $$"
            )
        for setting, value in CONTRADICTING.items():
            if setting == "role" and target.startswith("DATABASE"):
                continue  # PostgreSQL refuses this setting for a database
            literal = value if setting == "search_path" else f"'{value}'"
            conn.execute(f"ALTER {target} SET {setting} = {literal}")
    yield make_url(other_server.url(name)).set(username=login, password="x").render_as_string(hide_password=False)
    with other_server.connect() as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
        conn.execute(f"DROP ROLE {login}")


@pytest.mark.parametrize("as_app", [True, False])
def test_role_and_database_settings_change_nothing(
    contradicting_url: str, as_app: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGTZ": "Asia/Kathmandu",
        "PGDATESTYLE": "German",
        "PGOPTIONS": "-c statement_timeout=1",
    }.items():
        monkeypatch.setenv(name, value)
    database = db.connect(contradicting_url, as_app=as_app)
    try:
        with database.transaction() as conn:
            version = conn.connection.driver_connection.info.server_version  # type: ignore[union-attr]
            expected_settings = settings.session_settings(version, as_app=as_app)
            for name, value in expected_settings.items():
                current_value = conn.execute(text(f"SELECT current_setting('{name}')")).scalar()
                expected = conn.execute(text(f"SELECT pg_catalog.set_config('{name}', '{value}', true)")).scalar()
                assert (name, current_value) == (name, expected)
            assert conn.execute(text("SELECT current_user")).scalar() == (
                db.APP_ROLE if as_app else make_url(contradicting_url).username
            )
            assert conn.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
            assert conn.execute(text("SELECT interval '1 day -02:03:04'")).scalar() == timedelta(days=1) - timedelta(
                hours=2, minutes=3, seconds=4
            )
            assert database.clock.now(conn).tzinfo is UTC
            assert conn.execute(text(r"SELECT '\\'")).scalar() == "\\\\"
            assert conn.execute(text("SELECT pg_sleep(0.3), 'Łódź'")).one()[1] == "Łódź"
        assert database.engine.dialect._backslash_escapes is False  # type: ignore[attr-defined]
        with database.transaction() as conn:
            if not as_app:
                conn.execute(text("CREATE TABLE unwind.can_be_written (x int)"))
    finally:
        database.dispose()


def test_every_session_setting_is_contradicted_above() -> None:
    session_settings = settings.session_settings(150_000, as_app=True)
    assert set(session_settings) == set(CONTRADICTING) - {"role"}


def test_the_replaced_method_of_psycopg_is_unchanged() -> None:
    """An upgrade of psycopg needs a review of the method that models.db.driver replaces."""
    source = inspect.getsource(psycopg.Connection._start_query)
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == "bf3d90efd129"


def test_migration_ignores_database_settings(empty_database_url: str) -> None:
    name = make_url(empty_database_url).database
    for setting in ("statement_timeout = '20ms'", "default_transaction_read_only = on", "datestyle = 'German, DMY'"):
        with psycopg.connect(libpq_url(empty_database_url), options="-c default_transaction_read_only=off") as owner:
            owner.execute(f"ALTER DATABASE {name} SET {setting}")
    upgrade(empty_database_url)
    database = db.connect(empty_database_url)
    with database.transaction() as conn:
        assert conn.execute(text("SELECT to_regclass('unwind.orders') IS NOT NULL")).scalar()
    database.dispose()


def test_options_of_the_url_are_kept(database_url: str) -> None:
    options = "?options=-c%20work_mem%3D7MB%20-c%20timezone%3DAsia/Kathmandu&application_name=by%20name"
    database = db.connect(database_url + options)
    with database.transaction() as conn:
        assert conn.execute(text("SHOW work_mem")).scalar() == "7MB"
        assert conn.execute(text("SHOW timezone")).scalar() == "UTC"
        assert conn.execute(text("SHOW application_name")).scalar() == "by name"
        assert conn.execute(text("SHOW statement_timeout")).scalar() == "15s"
    database.dispose()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_refused_with_the_fix(other_server: PostgresServer, encoding: str) -> None:
    """LATIN1 can't store every name, and SQL_ASCII doesn't validate."""
    name = f"in_{encoding.lower()}"
    with other_server.connect() as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name}")
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    for attempt in (upgrade, _connect):
        with pytest.raises(OperationalError) as caught:
            attempt(other_server.url(name))
        assert isinstance(caught.value.orig, settings.SessionSettingsRefused)
        assert caught.value.orig.code == "DATABASE_ENCODING"
        assert encoding in str(caught.value.orig)
        assert "ENCODING 'UTF8'" in caught.value.orig.fix
    with other_server.connect(name) as conn:
        assert conn.execute("SELECT to_regnamespace('unwind')").fetchone() == (None,)
        backends = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        assert conn.execute(backends, [name]).fetchone() == (0,), "a refused connection is closed"


def test_login_with_disabled_triggers_is_refused(other_server: PostgresServer) -> None:
    with other_server.connect() as conn:
        conn.execute(f"ALTER ROLE {USER} SET session_replication_role = replica")
    try:
        with pytest.raises(OperationalError) as caught:
            _connect(other_server.url())
    finally:
        with other_server.connect() as conn:
            conn.execute(f"ALTER ROLE {USER} RESET session_replication_role")
    assert isinstance(caught.value.orig, settings.SessionSettingsRefused)
    assert caught.value.orig.code == "TRIGGERS_OFF"


def test_primary_of_several_hosts_is_used_before_and_after_a_failover() -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        second.follow(first)
        second.start()
        several = first.url().replace(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port},127.0.0.1:{first.port}")
        database = db.connect(several)
        assert _port(database) == first.port
        first.stop()
        second.promote()
        with contextlib.suppress(OperationalError):  # the pooled connection is broken; a command would be retried
            _port(database, write=True)
        assert _port(database, write=True) == second.port
        database.dispose()


def _connect(url: str) -> None:
    database = db.connect(url)
    try:
        with database.transaction() as conn:
            conn.execute(text("SELECT 1"))
    finally:
        database.dispose()


def _port(database: db.Database, *, write: bool = False) -> int:
    with database.transaction() as conn:
        if write:
            conn.execute(text("CREATE TEMPORARY TABLE can_be_written (x int) ON COMMIT DROP"))
            conn.execute(text("SELECT pg_current_xact_id()"))
        return int(conn.execute(text("SHOW port")).scalar_one())


def test_url_of_the_embedded_server_is_parsed(database_url: str) -> None:
    assert PostgresAddress.parse(database_url).hosts[0][0] == "127.0.0.1"
