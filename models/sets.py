"""How is a whole set written in one statement?  Rows travel as one array per column and are unnested by the database.

Round trips stay constant however many rows a set has (speed.md).  Statements are built once per shape and cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Boolean, Connection, Date, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, dialect

from models.driver import Cursor, byte_strings, instants, numbers, run, switches, texts

_POSTGRESQL = dialect()  # type: ignore[no-untyped-call]


class Written(str):
    """JSON that is text already."""

    __slots__ = ()


def insert_set(
    conn: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    skip_existing: bool = False,
    returning: str = "",
) -> list[Any]:
    """Insert all rows (same keys in each) and give the values of `returning` for the rows that went in, in order.

    `skip_existing`: a row whose unique key is there already is left out instead of being an error.
    """
    if not rows:
        return []
    cursor = send_set(conn, table, rows, skip_existing=skip_existing, returning=returning)
    return [row[0] for row in cursor] if returning else []


def send_set(
    conn: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    skip_existing: bool = False,
    returning: str = "",
) -> Cursor:
    """The same for rows of which there is one at least; to be read when the statements that go with it were sent."""
    names = tuple(rows[0])
    return run(conn, _insert(table, names, skip_existing, returning), _columns(table, names, rows))


def update_set(conn: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> int:
    """Update all rows (same keys in each), found by `keys`; gives how many there were."""
    if not rows:
        return 0
    names = tuple(rows[0])
    return run(conn, _update(table, tuple(keys), names), _columns(table, names, rows)).rowcount


@lru_cache(maxsize=256)
def _insert(table: Table, names: tuple[str, ...], skip_existing: bool, returning: str) -> str:
    conflict = "ON CONFLICT DO NOTHING" if skip_existing else ""
    back = f"RETURNING {returning}" if returning else ""
    return (
        f"INSERT INTO {table.fullname} ({', '.join(_quoted(names))}) SELECT {_values(table, names)} "  # noqa: S608 - names come from the table itself
        f"FROM unnest({_arrays(table, names)}) WITH ORDINALITY AS v({', '.join(_quoted(names))}, row_no) "
        f"ORDER BY row_no {conflict} {back}"
    )


@lru_cache(maxsize=256)
def _update(table: Table, keys: tuple[str, ...], names: tuple[str, ...]) -> str:
    target = ", ".join(f'"{n}" = {_value(table, n)}' for n in names if n not in keys)
    found = " AND ".join(f't."{k}" = v."{k}"' for k in keys)
    return (
        f"UPDATE {table.fullname} AS t SET {target} "  # noqa: S608 - names come from the table itself
        f"FROM unnest({_arrays(table, names)}) AS v({', '.join(_quoted(names))}) WHERE {found}"
    )


def _arrays(table: Table, names: tuple[str, ...]) -> str:
    return ", ".join(f"CAST(%({n})s AS {_carried(table, n)}[])" for n in names)


def _values(table: Table, names: tuple[str, ...]) -> str:
    return ", ".join(_value(table, n) for n in names)


def _value(table: Table, name: str) -> str:
    return f'CAST(v."{name}" AS jsonb)' if _is_json(table, name) else f'v."{name}"'


def _carried(table: Table, name: str) -> str:
    return "text" if _is_json(table, name) else table.c[name].type.compile(dialect=_POSTGRESQL)


def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSONB)


def _quoted(names: tuple[str, ...]) -> list[str]:
    return [f'"{n}"' for n in names]


def _columns(table: Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {n: _written(table, n)([row[n] for row in rows]) for n in names}


@lru_cache(maxsize=512)
def _written(table: Table, name: str) -> Callable[[Sequence[Any]], str]:
    """How values of that column are written as one array."""
    kind = table.c[name].type
    if isinstance(kind, JSONB):
        return _jsons
    if isinstance(kind, Text):
        return texts
    if isinstance(kind, TIMESTAMP | Date):
        return instants
    if isinstance(kind, Boolean):
        return switches
    return byte_strings if isinstance(kind, LargeBinary) else numbers


def _jsons(values: Sequence[Any]) -> str:
    return texts([v if v is None or type(v) is Written else to_json(v).decode() for v in values])
