"""Selects that several tables share. Their parameters are `ids`, or `now`, `after_at`, `after_id` and `limit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Row, Select, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import distinct_on

from models.db.arrays import Column, is_any_of_ids
from models.db.schema import Timestamp

AnySelect = Select[*tuple[Any, ...]]
DueRow = Row[Any]
DuePosition = tuple[datetime, int]
"""A deadline and the id of its row: the order in which a sweep handles what is due."""
BEFORE_ALL_DUE: DuePosition = (datetime(1, 1, 1, tzinfo=UTC), 0)


def select_latest(order_id: Column, key: Column) -> AnySelect:
    rows = select(order_id.class_).where(is_any_of_ids(order_id)).order_by(order_id, key.desc())
    return rows.ext(distinct_on(order_id))


def next_due(rows: AnySelect, at: Column, key: Column, condition: str | None = None) -> AnySelect:
    """Limit `rows` to those due by `now` after a position, `at` and `id`: a deadline and a key, as in their index."""
    position = tuple_(bindparam("after_at", type_=Timestamp), bindparam("after_id", type_=BigInteger))
    rows = rows.add_columns(at.label("at"), key.label("id"))
    due = rows.where(at <= bindparam("now", type_=Timestamp), tuple_(at, key) > position)
    if condition is not None:
        due = due.where(text(condition))
    return due.order_by(at, key).limit(bindparam("limit", type_=Integer))


def earliest(at: Any, condition: str = "true") -> Callable[[Connection], datetime | None]:
    """Return a function that reads the first instant among the rows that meet a condition."""
    first = select(func.min(at)).where(text(condition))
    return lambda conn: conn.execute(first).scalar()


def count_where(*conditions: Any, by: tuple[Any, ...] = ()) -> AnySelect:
    """Count the rows that meet the conditions, for each value of the columns `by`.

    Grouped by name: an expression that is repeated would be another one, as its parameters have other numbers.
    """
    return select(*by, func.count()).where(*conditions).group_by(*(column.name for column in by))


def due_parameters(now: datetime, after: DuePosition, limit: int) -> dict[str, Any]:
    return {"now": now, "after_at": after[0], "after_id": after[1], "limit": limit}


def find_due(conn: Connection, statement: AnySelect, now: datetime, after: DuePosition, limit: int) -> Sequence[DueRow]:
    return conn.execute(statement, due_parameters(now, after, limit)).all()
