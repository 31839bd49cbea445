"""Locks by name, for what has no row of its own: rows of a table that only the application can reach.

Advisory locks are not used, since any login of the database could take the same numbers and block all orders.
"""

from __future__ import annotations

from sqlalchemy import Connection, false, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base


class NamedLockRow(Base):
    __tablename__ = "named_locks"

    name: Mapped[str] = mapped_column(primary_key=True)


def lock_named(conn: Connection, name: str) -> None:
    row = insert(NamedLockRow).values(name=name)
    conn.execute(row.on_conflict_do_update(index_elements=["name"], set_={"name": name}, where=false()))


def try_lock_named(conn: Connection, name: str) -> bool:
    conn.execute(insert(NamedLockRow).values(name=name).on_conflict_do_nothing())
    row = select(NamedLockRow).where(NamedLockRow.name == name).with_for_update(skip_locked=True)
    return conn.execute(row).first() is not None
