"""Tests of migrations: no drift against the code, repeated and concurrent runs, and giving up on a lock."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from models import migrations
from models.db.schema import metadata


def test_migrated_schema_matches_the_code(database_url: str) -> None:
    """If this fails: python -m tools.first_revision."""
    engine = create_engine(database_url)
    with engine.connect() as conn:
        assert migrations.migrated_schema_differences(conn) == []
    engine.dispose()


def test_missing_column_is_reported(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("ALTER TABLE unwind.sweeps DROP COLUMN found"))
        assert "found" in str(migrations.migrated_schema_differences(conn))
    engine.dispose()


def test_second_migration_changes_nothing(database_url: str) -> None:
    before = _catalogue(database_url)
    migrations.upgrade(database_url)
    assert _catalogue(database_url) == before


def test_concurrent_migrations_create_one_schema(empty_database_url: str) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            migrations.upgrade(empty_database_url)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert {table.name for table in metadata.tables.values()} <= set(_catalogue(empty_database_url))


def test_migration_gives_up_on_a_locked_table(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands would queue behind a migration that waits for a table lock."""
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "100ms")
    engine = create_engine(database_url)
    with engine.connect() as holder:
        holder.execute(text("UPDATE unwind.alembic_version SET version_num = version_num"))
        holder.execute(text("LOCK TABLE unwind.alembic_version IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            migrations.upgrade(database_url)
        holder.rollback()
    migrations.upgrade(database_url)
    engine.dispose()


def test_every_constraint_has_a_name(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as conn:
        names = conn.execute(
            text(
                "SELECT conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace "
                "WHERE n.nspname = 'unwind' AND contype IN ('c', 'u', 'f', 'p') "
                "AND conrelid::regclass::text !~ 'alembic'"
            )
        ).scalars()
        unnamed = [name for name in names if not name.startswith(("ck_", "uq_", "fk_", "pk_"))]
    engine.dispose()
    assert unnamed == []


def _catalogue(url: str) -> list[str]:
    engine = create_engine(url)
    with engine.connect() as conn:
        rows = conn.execute(text("SELECT relname FROM pg_class WHERE relnamespace = 'unwind'::regnamespace ORDER BY 1"))
        names = list(rows.scalars())
    engine.dispose()
    return names
