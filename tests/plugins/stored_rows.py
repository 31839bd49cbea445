"""Typed reads of what is stored, for assertions.

The functions read on a given connection.  `StoredRows` reads what other transactions have committed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import pytest
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    Pool,
    StaticPool,
    create_engine,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.alerts import AlertRow
from models.db.schema import Base, table_of
from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.inventory import LotRow
from models.ledger import LedgerLineRow
from models.members import StrikeRow
from models.notices import NoticeRow
from models.orders import OrderRow
from models.outbox import OutboxRow

Row = TypeVar("Row", bound=Base)
Value = TypeVar("Value")


def load_rows(conn: Connection, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> list[Row]:
    """The rows that meet the conditions and have these values, in the order of the primary key."""
    query = select(table).where(*conditions).filter_by(**values).order_by(*inspect(table).primary_key)
    with Session(conn) as session:
        return list(session.scalars(query))


def load_column(
    conn: Connection, column: InstrumentedAttribute[Value], *conditions: ColumnElement[bool], **values: Any
) -> list[Value]:
    """One column of the rows that `load_rows` would return."""
    query = select(column).where(*conditions).filter_by(**values).order_by(*column.parent.primary_key)
    return list(conn.scalars(query))


def count_rows(conn: Connection, table: type[Base], *conditions: ColumnElement[bool], **values: Any) -> int:
    query = select(func.count()).select_from(table).where(*conditions).filter_by(**values)
    return conn.execute(query).scalar_one()


class StoredRows:
    """Reads each time what is committed then."""

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction on the database."""
        raise NotImplementedError

    def count(self, table: type[Base], *conditions: ColumnElement[bool], **values: Any) -> int:
        with self.read() as conn:
            return count_rows(conn, table, *conditions, **values)

    def column(
        self, column: InstrumentedAttribute[Value], *conditions: ColumnElement[bool], **values: Any
    ) -> list[Value]:
        with self.read() as conn:
            return load_column(conn, column, *conditions, **values)

    def status(self, order_id: int) -> str:
        return self.stored_order(order_id).status

    def stored(self, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> list[Row]:
        with self.read() as conn:
            return load_rows(conn, table, *conditions, **values)

    def stored_one(self, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> Row:
        """The only such row."""
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

    def server_time(self) -> datetime:
        """The time of the server's clock, in UTC."""
        with self.read() as conn:
            instant: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
        return instant.astimezone(UTC)

    def units(self, lot_id: int | None = None) -> int:
        """The quantity of a lot, by default of the only one."""
        (lot,) = self.lots() if lot_id is None else self.lots(lot_id=lot_id)
        return lot.quantity

    def units_in_stock(self) -> int:
        """The units of all lots."""
        return sum(self.column(LotRow.quantity))

    def follow_ups_are_done(self) -> bool:
        """Whether every outbox message is done and every notice is sent."""
        open_messages = self.count(OutboxRow, OutboxRow.state != "done")
        return open_messages + self.count(NoticeRow, NoticeRow.state != "sent") == 0

    def command_answer(self, request_id: str) -> Any:
        """The row of a request in the public view of answers, or None."""
        return self.row("SELECT * FROM unwind.command_answers WHERE request_id = :request_id", request_id=request_id)

    def content(self, *tables: type[Base]) -> dict[str, list[str]]:
        """All rows of these tables as texts, to compare what was before with what is after."""
        with self.read() as conn:
            return {table.__tablename__: sorted(map(repr, conn.execute(select(table_of(table))))) for table in tables}

    def content_except(self, *ignored: type[Base]) -> dict[str, list[str]]:
        """All rows of all other tables, as `content` returns them."""
        return self.content(*{mapper.class_ for mapper in Base.registry.mappers}.difference(ignored))

    def row(self, sql: str, **values: Any) -> Any:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.read() as conn:
            return list(conn.execute(text(sql), values))


def describe(value: object) -> str:
    """A row or a list of rows with their values, for the message of an assertion."""
    if isinstance(value, list):
        return "\n".join(map(describe, value))
    if isinstance(value, Base):
        return str({column.key: getattr(value, column.key) for column in inspect(type(value)).column_attrs})
    return str(value)


class DatabaseRows(StoredRows):
    """The rows of a database that other processes write."""

    poolclass: ClassVar[type[Pool]] = NullPool

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(self.database_url, isolation_level="AUTOCOMMIT", poolclass=self.poolclass)

    def read(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()


class ConnectedRows(DatabaseRows):
    """The same by one connection that stays open, for many queries."""

    poolclass = StaticPool

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def database_rows(database_url: str) -> DatabaseRows:
    return DatabaseRows(database_url)
