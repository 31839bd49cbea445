"""Bytes of write-ahead log that a workload writes, without full-page images: the same on every machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg

from benchmarks.environment import Environment


@contextlib.contextmanager
def without_full_page_images(environment: Environment) -> Iterator[None]:
    """Switch full-page images off, whose number depends on when checkpoints happen to come."""
    url = environment.urls.admin_url.replace("postgresql+psycopg:", "postgresql:", 1)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET full_page_writes = off")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            admin.execute("ALTER SYSTEM RESET full_page_writes")
            admin.execute("SELECT pg_reload_conf()")


def bytes_written(conn: psycopg.Connection, workload: Callable[[], object]) -> float:
    """Return the bytes that the server logged while the workload ran."""
    before = _position(conn)
    workload()
    return _position(conn) - before


def _position(conn: psycopg.Connection) -> float:
    row = conn.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8").fetchone()
    assert row is not None
    return float(row[0])
