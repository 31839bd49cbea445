"""What the application holds while it decides, where there is no row of the matter itself: rows of tables that only it reaches.

Advisory locks belong to every login of the database: whoever may call one function could take the same numbers and stop all orders.
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
    """A row per seller with a ledger."""

    __tablename__ = "ledger_locks"

    seller_id: Mapped[str] = mapped_column(primary_key=True)


class NamedLockRow(Base):
    """A row per matter that only one may be at, whole."""

    __tablename__ = "named_locks"

    name: Mapped[str] = mapped_column(primary_key=True)


def lock_items(numbers: str) -> str:
    """SQL that holds the items that the query `numbers` gives, one column in rising order, until the transaction ends.

    An ON CONFLICT that changes nothing still locks the row, also one that another transaction has only now committed.
    """
    return (
        f"INSERT INTO unwind.item_locks AS held (item) {numbers} "
        "ON CONFLICT (item) DO UPDATE SET item = excluded.item WHERE false"
    )


def lock_sellers(conn: Connection, seller_ids: Iterable[str], *, shared: bool) -> None:
    """Hold the ledgers of these sellers, with others who share them or alone.

    Everybody makes the missing rows first and then locks by rising id, so that nobody deadlocks.
    """
    values = {"sellers": text_array(sorted(set(seller_ids)))}
    with pipeline(conn):
        execute(conn, _MAKE_SELLERS, values)
        execute(conn, _SHARE_SELLERS if shared else _LOCK_SELLERS, values)


def lock_ledger(conn: Connection) -> None:
    """Hold the ledgers of all sellers: whoever locks one holds the table in a mode that this one excludes."""
    execute(conn, "LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE", {})


def lock_named(conn: Connection, name: str) -> None:
    """Hold a matter alone."""
    execute(
        conn,
        "INSERT INTO unwind.named_locks AS held (name) VALUES (%(name)s) "
        "ON CONFLICT (name) DO UPDATE SET name = excluded.name WHERE false",
        {"name": name},
    )


def try_lock_named(conn: Connection, name: str) -> bool:
    """Hold a matter alone, if nobody does; false at once when somebody does."""
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
    SELECT seller_id FROM unwind.ledger_locks WHERE seller_id = ANY(CAST(%(sellers)s AS text[])) ORDER BY seller_id FOR UPDATE
"""
_SHARE_SELLERS = """
    SELECT seller_id FROM unwind.ledger_locks WHERE seller_id = ANY(CAST(%(sellers)s AS text[])) ORDER BY seller_id FOR SHARE
"""
