"""Locks without a natural row: rows of tables only the application can reach.

Advisory locks are not used, since any login of the database could take the same numbers and block all orders.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, false, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt
from models.db.selects import is_any


class ItemLockRow(Base):
    """A row per item that ever came back or was recorded, by the hash of its key (`models/sql/lock_items.sql`)."""

    __tablename__ = "item_locks"

    item: Mapped[BigInt] = mapped_column(primary_key=True, autoincrement=False)


class LedgerLockRow(Base):
    __tablename__ = "ledger_locks"

    seller_id: Mapped[str] = mapped_column(primary_key=True)


class NamedLockRow(Base):
    __tablename__ = "named_locks"

    name: Mapped[str] = mapped_column(primary_key=True)


def lock_sellers(conn: Connection, seller_ids: Iterable[str], *, shared: bool) -> None:
    """Lock the ledgers of these sellers, shared or exclusively.

    Missing rows are inserted first, then all are locked by ascending id, so that no deadlock is possible.
    """
    ids = sorted(set(seller_ids))
    if not ids:
        return
    conn.execute(insert(LedgerLockRow).values([{"seller_id": i} for i in ids]).on_conflict_do_nothing())
    rows = select(LedgerLockRow).where(is_any(LedgerLockRow.seller_id, ids)).order_by(LedgerLockRow.seller_id)
    conn.execute(rows.with_for_update(read=shared))


def lock_ledger(conn: Connection) -> None:
    """Lock the ledgers of all sellers; the table lock conflicts with every row lock of `lock_sellers`."""
    conn.execute(text("LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE"))


def lock_named(conn: Connection, name: str) -> None:
    row = insert(NamedLockRow).values(name=name)
    conn.execute(row.on_conflict_do_update(index_elements=["name"], set_={"name": name}, where=false()))


def try_lock_named(conn: Connection, name: str) -> bool:
    conn.execute(insert(NamedLockRow).values(name=name).on_conflict_do_nothing())
    row = select(NamedLockRow).where(NamedLockRow.name == name).with_for_update(skip_locked=True)
    return conn.execute(row).first() is not None
