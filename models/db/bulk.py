"""Set-based INSERT and UPDATE: one statement for any number of rows, sent as one array per column.

Statements are built once for each shape and cached, so the number of round trips does not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Connection, Date, LargeBinary, Table, Text, TextClause, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, dialect

from models.db.arrays import bool_array, bytea_array, int_array, json_array, text_array, timestamp_array
from models.db.pipeline import Cursor, execute
from models.db.row_mapping import to_columns
from models.db.schema import Base, table_of

Columns = Mapping[str, Sequence[Any]]
"""Values of rows by column."""
_BULK_DIALECT = dialect()  # type: ignore[no-untyped-call]


def insert_rows(
    conn: Connection,
    target: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    skip_existing: bool = False,
    returning: str = "",
) -> list[Any]:
    """Insert rows that have the same keys; return the values of column `returning` for the inserted rows, in order.

    With `skip_existing` a row whose unique key exists is skipped instead of raising.
    """
    if not rows:
        return []
    columns = to_columns(rows, tuple(rows[0]), itemgetter)
    cursor = send_insert(conn, target, columns, skip_existing=skip_existing, returning=returning)
    return [row[0] for row in cursor] if returning else []


def send_insert(
    conn: Connection,
    target: type[Base],
    columns: Columns,
    *,
    skip_existing: bool = False,
    returning: str = "",
) -> Cursor:
    table = table_of(target)
    statement = _insert_statement(table, tuple(columns), skip_existing, returning)
    return execute(conn, statement, _column_arrays(table, columns))


def update_rows(conn: Connection, target: type[Base], keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        _update_columns(conn, target, keys, to_columns(rows, tuple(rows[0]), itemgetter))


def update_changed_columns(
    conn: Connection,
    target: type[Base],
    keys: Mapping[str, Sequence[Any]],
    names: tuple[str, ...],
    changes: Sequence[tuple[Any, Any]],
) -> None:
    """Update rows from objects before and after; a column that changed in none of them is left out."""
    if not changes:
        return
    before, after = (to_columns(values, names) for values in zip(*changes, strict=True))
    changed = {name: after[name] for name in names if after[name] != before[name]}
    if changed:
        _update_columns(conn, target, tuple(keys), {**keys, **changed})


def _update_columns(conn: Connection, target: type[Base], keys: Sequence[str], columns: Columns) -> None:
    table = table_of(target)
    execute(conn, _update_statement(table, tuple(keys), tuple(columns)), _column_arrays(table, columns))


@lru_cache(maxsize=256)
def _insert_statement(table: Table, names: tuple[str, ...], skip_existing: bool, returning: str) -> TextClause:
    conflict = "ON CONFLICT DO NOTHING" if skip_existing else ""
    returning_clause = f"RETURNING {returning}" if returning else ""
    values = ", ".join(_column_value_sql(table, n) for n in names)
    return text(
        f"INSERT INTO {table.fullname} ({_quoted_column_list(names)}) SELECT {values} "  # noqa: S608 - names come from the table itself
        f"FROM {_unnested_rows(table, names, numbered=True)} ORDER BY row_no {conflict} {returning_clause}"
    )


@lru_cache(maxsize=256)
def _update_statement(table: Table, keys: tuple[str, ...], names: tuple[str, ...]) -> TextClause:
    target = ", ".join(f'"{n}" = {_column_value_sql(table, n)}' for n in names if n not in keys)
    matches = " AND ".join(f't."{k}" = v."{k}"' for k in keys)
    return text(f"UPDATE {table.fullname} AS t SET {target} FROM {_unnested_rows(table, names)} WHERE {matches}")  # noqa: S608 - names come from the table itself


def _unnested_rows(table: Table, names: tuple[str, ...], *, numbered: bool = False) -> str:
    # SQL for the rows as `v`: an array per column; a JSON column is one document, so nothing is quoted by row.
    plain = tuple(n for n in names if not _is_json(table, n))
    documents = tuple(n for n in names if _is_json(table, n))
    arrays = ", ".join(f"CAST(:{n} AS {table.c[n].type.compile(dialect=_BULK_DIALECT)}[])" for n in plain)
    parts = [f"unnest({arrays})", *(f"jsonb_array_elements(CAST(:{n} AS jsonb))" for n in documents)]
    ordinality, number = (" WITH ORDINALITY", ", row_no") if numbered else ("", "")
    return f"ROWS FROM ({', '.join(parts)}){ordinality} AS v({_quoted_column_list((*plain, *documents))}{number})"


def _column_value_sql(table: Table, name: str) -> str:
    return f"NULLIF(v.\"{name}\", 'null')" if _is_json(table, name) and table.c[name].nullable else f'v."{name}"'


def _is_json(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, JSONB)


def _quoted_column_list(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{n}"' for n in names)


def _column_arrays(table: Table, columns: Columns) -> dict[str, str]:
    return {name: _array_writer(table, name)(values) for name, values in columns.items()}


@lru_cache(maxsize=512)
def _array_writer(table: Table, name: str) -> Callable[[Sequence[Any]], str]:
    kind = table.c[name].type
    if isinstance(kind, JSONB):
        return json_array
    if isinstance(kind, Text):
        return text_array
    if isinstance(kind, TIMESTAMP | Date):
        return timestamp_array
    if isinstance(kind, Boolean):
        return bool_array
    return bytea_array if isinstance(kind, LargeBinary) else int_array
