"""Typed reads of what is stored, for assertions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
from sqlalchemy import ColumnElement, Connection, NullPool, create_engine, func, inspect, select, text
from sqlalchemy.orm import Session

from models.alerts import AlertRow
from models.db.schema import Base
from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.inventory import LotRow
from models.ledger import LedgerLineRow
from models.members import StrikeRow
from models.notices import NoticeRow
from models.orders import OrderRow
from models.outbox import OutboxRow

Row = TypeVar("Row", bound=Base)


class StoredRows:
    """Reads each time what is committed then."""

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction on the database."""
        raise NotImplementedError

    def count(self, table: type[Base], *conditions: ColumnElement[bool], **values: Any) -> int:
        """The number of rows that meet the conditions and have these values."""
        query = select(func.count()).select_from(table).where(*conditions).filter_by(**values)
        with self.read() as conn:
            return conn.execute(query).scalar_one()

    def status(self, order_id: int) -> str:
        return self.stored_order(order_id).status

    def stored(self, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> list[Row]:
        """The rows that meet the conditions and have these values, in the order of the primary key."""
        query = select(table).where(*conditions).filter_by(**values).order_by(*inspect(table).primary_key)
        with self.read() as conn, Session(conn) as session:
            return list(session.scalars(query))

    def stored_one(self, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> Row:
        """The only row that meets the conditions and has these values."""
        (row,) = self.stored(table, *conditions, **values)
        return row

    def stored_order(self, order_id: int = 1003) -> OrderRow:
        return self.stored_one(OrderRow, order_id=order_id)

    def alerts(self, *conditions: ColumnElement[bool], **values: Any) -> list[AlertRow]:
        return self.stored(AlertRow, *conditions, **values)

    def dead_jobs(self, *conditions: ColumnElement[bool], **values: Any) -> list[DeadJobRow]:
        return self.stored(DeadJobRow, *conditions, **values)

    def events(self, *conditions: ColumnElement[bool], **values: Any) -> list[EventRow]:
        return self.stored(EventRow, *conditions, **values)

    def ledger_lines(self, *conditions: ColumnElement[bool], **values: Any) -> list[LedgerLineRow]:
        return self.stored(LedgerLineRow, *conditions, **values)

    def lots(self, *conditions: ColumnElement[bool], **values: Any) -> list[LotRow]:
        return self.stored(LotRow, *conditions, **values)

    def notices(self, *conditions: ColumnElement[bool], **values: Any) -> list[NoticeRow]:
        return self.stored(NoticeRow, *conditions, **values)

    def outbox(self, *conditions: ColumnElement[bool], **values: Any) -> list[OutboxRow]:
        return self.stored(OutboxRow, *conditions, **values)

    def strikes(self, *conditions: ColumnElement[bool], **values: Any) -> list[StrikeRow]:
        return self.stored(StrikeRow, *conditions, **values)

    def units(self, lot_id: int | None = None) -> int:
        """The quantity of a lot, by default of the only one."""
        (lot,) = self.lots() if lot_id is None else self.lots(lot_id=lot_id)
        return lot.quantity

    def content(self, *tables: str) -> dict[str, list[str]]:
        """All rows of these tables as texts, to compare what was before with what is after."""
        return {name: sorted(map(repr, self.rows(f"SELECT * FROM unwind.{name}"))) for name in tables}  # noqa: S608

    def row(self, sql: str, **values: Any) -> Any:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.read() as conn:
            return list(conn.execute(text(sql), values))


class DatabaseRows(StoredRows):
    """The rows of a database that other processes write."""

    def __init__(self, database_url: str) -> None:
        self._engine = create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def read(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()


@pytest.fixture
def database_rows(database_url: str) -> DatabaseRows:
    return DatabaseRows(database_url)
