"""What do all tables share?  One schema, named constraints, and the column types that keep money and time honest."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, MetaData, Numeric, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

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
"""US dollars with cents: what is owed.  An order is worth less than 10^12, so ten thousand million of them add up in here."""
Price = Numeric(14, 4)
"""A unit price in the seller's currency, four decimals as the marketplace's own API keeps them."""
Total = Numeric(24, 4)
Rate = Numeric(18, 8)
Json = JSONB(none_as_null=True)


FEED_BASE = (
    "CREATE OR REPLACE FUNCTION unwind.feed_base() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN {base}"
)
"""What is added to a server's transaction numbers: 0 until the tables move to a server that counts from lower (models/feed.py).

A function of a constant, so that the planner folds it and no row pays for it.
"""


def written_in() -> Column[int]:
    """The transaction that wrote a row, for readers who must not miss what commits late (models/feed.py)."""
    default = text("((pg_current_xact_id()::text)::bigint + unwind.feed_base())")
    return Column("written_in", BigInteger, nullable=False, server_default=default)


def check_in(column: str, values: Any, name: str | None = None) -> CheckConstraint:
    """The database refuses a word that is not in the vocabulary."""
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=name or f"{column}_known")


def check_finite(column: str) -> CheckConstraint:
    """NaN is a valid `numeric` to PostgreSQL and never a valid amount to us (reliability F55)."""
    return CheckConstraint(f"{column} <> 'NaN'", name=f"{column}_is_a_number")


def code_column(name: str, *, nullable: bool = False) -> Column[str]:
    """A text column for a word of a closed vocabulary."""
    return Column(name, Text, nullable=nullable)
