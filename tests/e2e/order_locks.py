"""Locks that a test holds, and the statements that wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import NullPool, create_engine, select

from models.orders import OrderRow
from tests.plugins.stored_rows import StoredRows

LOCK_WAITS = """
    SELECT count(*) AS number FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@contextmanager
def locked_order(database_url: str, order_id: int) -> Iterator[None]:
    """Hold the lock of an order's row until the block ends."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as conn:
        conn.execute(select(OrderRow.order_id).where(OrderRow.order_id == order_id).with_for_update()).one()
        yield


def count_lock_waits(database_rows: StoredRows) -> int:
    """The number of statements that wait for a lock in this database."""
    return int(database_rows.row(LOCK_WAITS).number)
