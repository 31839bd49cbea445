"""Arrays as parameters of statements: array literals, `= ANY (array)`, and one JSON document for an array of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, TableValuedAlias, any_, bindparam, func, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

Column = InstrumentedAttribute[Any]


def int_array(values: Sequence[Any]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def bool_array(values: Sequence[bool | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else "t" if value else "f" for value in values]) + "}"


def timestamp_array(values: Sequence[datetime | date | None]) -> str:
    written = {value: "NULL" if value is None else value.isoformat() for value in set(values)}
    return "{" + ",".join([written[value] for value in values]) + "}"


def text_array(values: Sequence[str | None]) -> str:
    """Return an array literal of texts, which are escaped together and separated by NUL, as no text contains it."""
    if None in values:
        return "{" + ",".join(["NULL" if value is None else text_array([value])[1:-1] for value in values]) + "}"
    if not values:
        return "{}"
    joined = "\x00".join(values)  # type: ignore[arg-type]  # None was handled above
    if joined.count("\x00") != len(values) - 1:
        raise ValueError("a text that contains NUL cannot be stored")
    return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\x00", '","') + '"}'


def bytea_array(values: Sequence[bytes | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def json_array(values: Sequence[Any]) -> str:
    return orjson.dumps(values, default=_decimal_in_json_array, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _decimal_in_json_array(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: convert it first")


def array_rows(**columns: Column) -> TableValuedAlias:
    """Return the rows that arrays of values for these columns, bound by the names, make together."""
    arrays = (bindparam(name, type_=ARRAY(column.type)) for name, column in columns.items())
    return func.unnest(*arrays).table_valued(*columns).render_derived("rows")


def is_any(column: Column, values: Iterable[Any]) -> ColumnElement[bool]:
    return column == any_(literal(list(values), ARRAY(column.type)))


def is_any_of_ids(column: Column, name: str = "ids") -> ColumnElement[bool]:
    return column == any_(bindparam(name, type_=ARRAY(column.type)))
