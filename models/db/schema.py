"""The declarative base of all tables, its column types, and shared constraints."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, cast

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, MetaData, Numeric, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, mapped_column

metadata = MetaData(
    schema="unwind",
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)

Timestamp = TIMESTAMP(timezone=True)
Cents = Numeric(24, 2)
"""US dollars with cents.  An order is worth less than 10^12, so the sum of 10^10 orders fits."""
Price = Numeric(14, 4)
"""A unit price in the seller's currency, four decimals like the marketplace's own API."""
Total = Numeric(24, 4)
Rate = Numeric(18, 8)
Json = JSONB(none_as_null=True)


class Base(DeclarativeBase):
    """The base of every table's class.

    The classes describe tables only: statements are SQLAlchemy Core over them, and no ORM session is used.  In the
    annotations `str` is `text`, `datetime` is `timestamptz`, `int` is `integer`, `BigInt` is `bigint`, and
    `dict[str, Any]` is `jsonb`.
    """

    metadata = metadata
    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Text(), datetime: Timestamp, dict[str, Any]: Json}


BigInt = Annotated[int, mapped_column(BigInteger)]
BigIntKey = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True, autoincrement=True)]
"""A primary key that the database numbers."""


def table_of(row_class: type[Base]) -> Table:
    return cast("Table", row_class.__table__)


def check_in(column: str, values: Any) -> CheckConstraint:
    literals = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({literals})", name=f"{column}_known")


def check_finite(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} <> 'NaN'", name=f"{column}_is_a_number")


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=text(where))
