"""Tests of statements with arrays of values: every value reaches the database exactly as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Column, Connection, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from models.db.bulk import insert_rows
from models.db.pipeline import (
    bool_array,
    bytea_array,
    execute,
    int_array,
    json_array,
    pipeline,
    text_array,
    timestamp_array,
)
from policies.statuses import Role
from workers.simulation.engine import Simulation

ON_ONE_STAGE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
WORDS = some.text(some.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
NASTY = some.sampled_from(
    ["", "NULL", "null", "{}", '"', "\\", '\\"', "{a,b}", " a ", "a\nb", "\\x00", '{"a": "b\\\\"}', "é"]
)
INSTANTS = some.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001 - made aware in the same breath


def arrives(conn: Connection, kind: str, values: list[Any], written: Callable[[Any], str]) -> list[Any]:
    rows = execute(conn, f"SELECT * FROM unnest(CAST(%(values)s AS {kind}[]))", {"values": written(values)})  # noqa: S608 - a word of this file
    return [row[0] for row in rows]


@given(values=some.lists(some.none() | NASTY | WORDS), whole=some.booleans())
@ON_ONE_STAGE
def test_texts_arrive_whatever_is_in_them(simulation: Simulation, values: list[str | None], whole: bool) -> None:
    """R100: what was said is kept to the letter, also where it looks like the notation of arrays."""
    values = [value for value in values if value is not None or not whole]
    with simulation.database.transaction() as conn:
        assert arrives(conn, "text", values, text_array) == values


@pytest.mark.parametrize(
    ("kind", "written", "values"),
    [
        ("bigint", int_array, some.integers(-(2**63), 2**63 - 1)),
        ("numeric", int_array, some.decimals(allow_nan=False, allow_infinity=False, places=4)),
        ("boolean", bool_array, some.booleans()),
        ("timestamptz", timestamp_array, INSTANTS),
        ("date", timestamp_array, some.dates(date(1, 1, 2))),
        ("bytea", bytea_array, some.binary()),
    ],
)
def test_other_values_arrive_too(simulation: Simulation, kind: str, written: Callable[[Any], str], values: Any) -> None:
    """R100: amounts, instants and hashes, and what is not there, come out as they went in."""

    @given(sent=some.lists(some.none() | values))
    @settings(max_examples=25, deadline=None)
    def check(sent: list[Any]) -> None:
        assert arrives(conn, kind, sent, written) == sent

    with simulation.database.transaction() as conn:
        check()


def test_a_text_with_nul_is_refused_and_moves_no_other(simulation: Simulation) -> None:
    """NUL parts the texts of a set while they travel, so a text that has one must never be taken for two."""
    with pytest.raises(ValueError, match="NUL"):
        text_array(["a", "b\x00c"])
    with pytest.raises(ValueError, match="NUL"):
        text_array([None, "\x00"])


DOCUMENTS = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | NASTY | WORDS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(answers=some.lists(some.none() | some.dictionaries(WORDS, DOCUMENTS, max_size=3), min_size=1))
@ON_ONE_STAGE
def test_documents_arrive_whatever_is_in_them_and_none_is_no_document(
    simulation: Simulation, answers: list[Any]
) -> None:
    """R100: they travel as one array of all; a row without a document must not come out with one that says null."""
    with simulation.database.transaction() as conn:
        execute(conn, "SET LOCAL ROLE NONE", {})  # the application may make no table of any kind
        execute(conn, "CREATE TEMP TABLE kept (request_id text, answer jsonb) ON COMMIT DROP", {})
        kept = Table("kept", MetaData(), Column("request_id", Text), Column("answer", JSONB))
        insert_rows(conn, kept, [{"request_id": str(n), "answer": answer} for n, answer in enumerate(answers)])
        rows = execute(conn, "SELECT answer, answer IS NULL AS none FROM kept ORDER BY CAST(request_id AS integer)", {})
        assert [(row.answer, row.none) for row in rows] == [(answer, answer is None) for answer in answers]


def test_amounts_in_documents_are_text_and_what_has_no_one_way_is_refused() -> None:
    """house: money is never a float; an instant is written by whoever knows how it is said to people."""
    assert json_array([{"amount": Decimal("-0.30")}, {"role": Role.BUYER}]) == '[{"amount":"-0.30"},{"role":"buyer"}]'
    for value in (datetime(2026, 1, 1, tzinfo=UTC), object(), {1: 2}, float):
        with pytest.raises(TypeError):
            json_array([value])


def test_statements_sent_together_see_what_was_committed_meanwhile(simulation: Simulation) -> None:
    """They save trips and nothing else; each has its own look at what others have done."""
    with simulation.database.transaction() as conn:
        with pipeline(conn):
            first = execute(conn, "SELECT CAST(%(n)s AS integer), clock_timestamp()", {"n": 1})
            second = execute(conn, "SELECT CAST(%(n)s AS integer), clock_timestamp()", {"n": 2})
        ((one, earlier),), ((two, later),) = first.fetchall(), second.fetchall()
        assert (one, two) == (1, 2)
        assert timedelta(0) < later - earlier < timedelta(minutes=1)


def test_the_first_of_them_that_fails_is_the_one_that_is_told(simulation: Simulation) -> None:
    """The unit of work is told why, in the words in which it decides whether to run again."""
    with simulation.database.transaction() as conn:

        def fails() -> None:
            with pipeline(conn):
                execute(conn, "SELECT 1", {})
                execute(conn, "SELECT 1 / CAST(%(n)s AS integer)", {"n": 0})
                execute(conn, "SELECT 2", {})

        with pytest.raises(DBAPIError) as failed:
            fails()
    assert failed.value.orig is not None
    assert getattr(failed.value.orig, "sqlstate", None) == "22012"


def test_amounts_keep_their_places(simulation: Simulation) -> None:
    """R93: an amount is copied, to the last place."""
    with simulation.database.transaction() as conn:
        sent = [Decimal("20.00"), Decimal("1E+3"), Decimal("0.00000001")]
        came = arrives(conn, "numeric", sent, int_array)
        assert [f"{value:f}" for value in came] == ["20.00", "1000", "0.00000001"]
