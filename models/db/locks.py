"""Locks without a natural row: rows of tables that only the application can reach.

Advisory locks are not used, since any login of the database could take the same numbers and block all orders.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection
from sqlalchemy.orm import Mapped, mapped_column

from models.db.pipeline import execute, pipeline, text_array
from models.db.schema import Base, BigInt


class ItemLockRow(Base):
    """A row per item that ever came back or was recorded, by the hash of its key (`models.inventory.item_lock_sql`)."""

    __tablename__ = "item_locks"

    item: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)


class LedgerLockRow(Base):
    __tablename__ = "ledger_locks"

    seller_id: Mapped[str] = mapped_column(primary_key=True)


class NamedLockRow(Base):
    __tablename__ = "named_locks"

    name: Mapped[str] = mapped_column(primary_key=True)


def lock_items(numbers: str) -> str:
    """Return SQL that locks the items that the query `numbers` returns in ascending order.

    An ON CONFLICT that changes nothing still locks the row, even one that another transaction has just committed.
    """
    return (
        f"INSERT INTO unwind.item_locks AS held (item) {numbers} "
        "ON CONFLICT (item) DO UPDATE SET item = excluded.item WHERE false"
    )


def lock_sellers(conn: Connection, seller_ids: Iterable[str], *, shared: bool) -> None:
    """Lock the ledgers of these sellers, shared or exclusively.

    Missing rows are inserted first, then all are locked by ascending id, so that no deadlock is possible.
    """
    values = {"sellers": text_array(sorted(set(seller_ids)))}
    with pipeline(conn):
        execute(conn, _MAKE_SELLERS, values)
        execute(conn, _SHARE_SELLERS if shared else _LOCK_SELLERS, values)


def lock_ledger(conn: Connection) -> None:
    """Lock the ledgers of all sellers; the table lock conflicts with every row lock of `lock_sellers`."""
    execute(conn, "LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE", {})


def lock_named(conn: Connection, name: str) -> None:
    execute(
        conn,
        "INSERT INTO unwind.named_locks AS held (name) VALUES (%(name)s) "
        "ON CONFLICT (name) DO UPDATE SET name = excluded.name WHERE false",
        {"name": name},
    )


def try_lock_named(conn: Connection, name: str) -> bool:
    with pipeline(conn):
        execute(conn, "INSERT INTO unwind.named_locks (name) VALUES (%(name)s) ON CONFLICT DO NOTHING", {"name": name})
        rows = execute(
            conn, "SELECT name FROM unwind.named_locks WHERE name = %(name)s FOR UPDATE SKIP LOCKED", {"name": name}
        )
    return rows.fetchone() is not None


_MAKE_SELLERS = """
    INSERT INTO unwind.ledger_locks (seller_id)
    SELECT s FROM unnest(CAST(%(sellers)s AS text[])) AS s ORDER BY s ON CONFLICT DO NOTHING
"""
_LOCK_SELLERS = """
    SELECT seller_id FROM unwind.ledger_locks WHERE seller_id = ANY(CAST(%(sellers)s AS text[])) ORDER BY seller_id
        FOR UPDATE
"""
_SHARE_SELLERS = """
    SELECT seller_id FROM unwind.ledger_locks WHERE seller_id = ANY(CAST(%(sellers)s AS text[])) ORDER BY seller_id
        FOR SHARE
"""
