"""Tests of statements with arrays of values: every value reaches the database exactly as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from models.db.arrays import bool_array, bytea_array, int_array, json_array, text_array, timestamp_array
from models.db.bulk import insert_rows, update_changed_columns
from models.db.pipeline import execute, pipeline
from policies.statuses import Role
from workers.simulation.engine import Simulation

SHARED_DATABASE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
WORDS = some.text(some.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
SPECIAL_TEXTS = some.sampled_from(
    ["", "NULL", "null", "{}", '"', "\\", '\\"', "{a,b}", " a ", "a\nb", "\\x00", '{"a": "b\\\\"}', "é"]
)
INSTANTS = some.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001 - made aware in the same line


def round_trip(conn: Connection, kind: str, values: list[Any], encode: Callable[[Any], str]) -> list[Any]:
    rows = execute(conn, text(f"SELECT * FROM unnest(CAST(:values AS {kind}[]))"), {"values": encode(values)})  # noqa: S608 - a constant of this file
    return [row[0] for row in rows]


@given(values=some.lists(some.none() | SPECIAL_TEXTS | WORDS), without_nulls=some.booleans())
@SHARED_DATABASE
def test_texts_arrive_unchanged(simulation: Simulation, values: list[str | None], without_nulls: bool) -> None:
    """R100: texts that look like array literals arrive unchanged too."""
    values = [value for value in values if value is not None or not without_nulls]
    with simulation.database.transaction() as conn:
        assert round_trip(conn, "text", values, text_array) == values


@pytest.mark.parametrize(
    ("kind", "encode", "values"),
    [
        ("bigint", int_array, some.integers(-(2**63), 2**63 - 1)),
        ("numeric", int_array, some.decimals(allow_nan=False, allow_infinity=False, places=4)),
        ("boolean", bool_array, some.booleans()),
        ("timestamptz", timestamp_array, INSTANTS),
        ("date", timestamp_array, some.dates(date(1, 1, 2))),
        ("bytea", bytea_array, some.binary()),
    ],
)
def test_values_of_other_types_arrive_unchanged(
    simulation: Simulation, kind: str, encode: Callable[[Any], str], values: Any
) -> None:
    """R100: amounts, timestamps, hashes and NULLs arrive unchanged."""

    @given(sent=some.lists(some.none() | values))
    @settings(max_examples=25, deadline=None)
    def check(sent: list[Any]) -> None:
        assert round_trip(conn, kind, sent, encode) == sent

    with simulation.database.transaction() as conn:
        check()


def test_text_with_nul_is_refused(simulation: Simulation) -> None:
    """NUL separates the texts of an array on the wire."""
    with pytest.raises(ValueError, match="NUL"):
        text_array(["a", "b\x00c"])
    with pytest.raises(ValueError, match="NUL"):
        text_array([None, "\x00"])


DOCUMENTS = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | SPECIAL_TEXTS | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(answers=some.lists(some.none() | some.dictionaries(WORDS, DOCUMENTS, max_size=3), min_size=1))
@SHARED_DATABASE
def test_documents_arrive_unchanged_and_none_becomes_null(simulation: Simulation, answers: list[Any]) -> None:
    """R100: a row without a document stores NULL, not the JSON value null."""
    with simulation.database.transaction() as conn:
        execute(conn, text("SET LOCAL ROLE NONE"), {})  # the application role must not create tables
        execute(conn, text("CREATE TEMP TABLE documents (request_id text, answer jsonb) ON COMMIT DROP"), {})
        table = Table("documents", MetaData(), Column("request_id", Text), Column("answer", JSONB))
        documents: Any = SimpleNamespace(__table__=table)
        insert_rows(conn, documents, [{"request_id": str(n), "answer": answer} for n, answer in enumerate(answers)])
        rows = execute(
            conn, text("SELECT answer, answer IS NULL AS none FROM documents ORDER BY CAST(request_id AS integer)"), {}
        )
        assert [(row.answer, row.none) for row in rows] == [(answer, answer is None) for answer in answers]


ROWS = some.lists(some.tuples(some.none() | SPECIAL_TEXTS, some.none() | some.integers(0, 2)), min_size=1, max_size=4)


@given(before=ROWS, changes=ROWS)
@SHARED_DATABASE
def test_rows_are_updated_to_what_their_objects_became(
    simulation: Simulation, before: list[tuple[Any, Any]], changes: list[tuple[Any, Any]]
) -> None:
    """R100: also where a column changed in some rows only, or in none."""
    objects = [SimpleNamespace(comment=comment, number=number) for comment, number in before]
    became = [SimpleNamespace(comment=comment, number=number) for comment, number in changes[: len(before)]]
    after = [*became, *objects[len(became) :]]
    with simulation.database.transaction() as conn:
        execute(conn, text("SET LOCAL ROLE NONE"), {})  # the application role must not create tables
        execute(conn, text("CREATE TEMP TABLE remarks (id bigint, comment text, number integer) ON COMMIT DROP"), {})
        columns = (Column("id", BigInteger), Column("comment", Text), Column("number", Integer))
        remarks: Any = SimpleNamespace(__table__=Table("remarks", MetaData(), *columns))
        insert_rows(conn, remarks, [{"id": n, **vars(value)} for n, value in enumerate(objects)])
        pairs = list(zip(objects, after, strict=True))
        update_changed_columns(conn, remarks, {"id": range(len(pairs))}, ("comment", "number"), pairs)
        rows = execute(conn, text("SELECT comment, number FROM remarks ORDER BY id"), {})
        assert [tuple(row) for row in rows] == [(value.comment, value.number) for value in after]


def test_amounts_in_documents_are_text_and_other_types_are_refused() -> None:
    assert json_array([{"amount": Decimal("-0.30")}, {"role": Role.BUYER}]) == '[{"amount":"-0.30"},{"role":"buyer"}]'
    for value in (datetime(2026, 1, 1, tzinfo=UTC), object(), {1: 2}, float):
        with pytest.raises(TypeError):
            json_array([value])


def test_pipelined_statements_have_separate_snapshots(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        with pipeline(conn):
            first = execute(conn, text("SELECT CAST(:n AS integer), clock_timestamp()"), {"n": 1})
            second = execute(conn, text("SELECT CAST(:n AS integer), clock_timestamp()"), {"n": 2})
        ((first_n, earlier),), ((second_n, later),) = first.fetchall(), second.fetchall()
        assert (first_n, second_n) == (1, 2)
        assert timedelta(0) < later - earlier < timedelta(minutes=1)


def test_pipeline_raises_the_error_of_its_first_failing_statement(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:

        def fails() -> None:
            with pipeline(conn):
                execute(conn, text("SELECT 1"), {})
                execute(conn, text("SELECT 1 / CAST(:n AS integer)"), {"n": 0})
                execute(conn, text("SELECT 2"), {})

        with pytest.raises(DBAPIError) as failed:
            fails()
    assert failed.value.orig is not None
    assert getattr(failed.value.orig, "sqlstate", None) == "22012"


def test_amounts_keep_their_decimal_places(simulation: Simulation) -> None:
    """R93: amounts keep every decimal place."""
    with simulation.database.transaction() as conn:
        sent = [Decimal("20.00"), Decimal("1E+3"), Decimal("0.00000001")]
        received = round_trip(conn, "numeric", sent, int_array)
        assert [f"{value:f}" for value in received] == ["20.00", "1000", "0.00000001"]
