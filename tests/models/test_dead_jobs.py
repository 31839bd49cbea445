"""Tests of parking failed jobs with arguments of any kind, in UTF8 and LATIN1 databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from models import dead_jobs
from models.db.database import Database
from models.db.schema import table_of
from tests.plugins.servers import in_database
from workers.embedded.client import ServerUrls
from workers.embedded.servers import OWNER

NOW = datetime(2026, 4, 12, tzinfo=UTC)
DEEP: Any = "bottom"
for _ in range(1_000):
    DEEP = [DEEP]


class Unprintable:
    """An object that can't be converted to text."""

    def __str__(self) -> str:
        raise ValueError


ARGUMENTS: dict[str, Any] = {
    "a character that LATIN1 lacks": "Łódź 😀",
    "NUL": "a\x00b",
    "half a surrogate": "\ud800",
    "a UUID": UUID(int=5),
    "an amount": Decimal("1.00"),
    "an instant": NOW,
    "bytes": b"\xff",
    "a set": {1},
    "a tuple": (1, 2),
    "not a number": float("nan"),
    "infinity": float("inf"),
    "more digits than Python prints": 10**5_000,
    "deep": DEEP,
    "keys of any kind": {1: 1, None: 2, "\x00": 3},
    "no text": Unprintable(),
}


@pytest.fixture(scope="module", params=["UTF8", "LATIN1"])
def database(request: pytest.FixtureRequest, servers: ServerUrls, admin: psycopg.Connection) -> Iterator[Database]:
    """A database of each encoding with the table of dead jobs."""
    name = f"test_dead_{request.param.lower()}"
    admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    admin.execute(
        f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'".encode()
    )
    engine = create_engine(in_database(servers.database_url, name), connect_args={"client_encoding": "UTF8"})
    with engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA unwind"))
        table_of(dead_jobs.DeadJobRow).create(conn)
    yield Database(engine)
    engine.dispose()
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def park(database: Database, arguments: dict[str, Any], **fields: Any) -> Any:
    """Park a job with these arguments and return its row."""
    known: dict[str, Any] = {"task": "npb.file", "arguments": arguments, "error": "x", "attempts": 1, "now": NOW}
    with database.transaction() as conn:
        row = dead_jobs.get_dead_job(conn, dead_jobs.park_job(conn, **(known | fields)))
    assert row is not None
    assert bytes(row.payload_hash) == dead_jobs.dead_job_payload_hash(row.arguments), "it can be requeued"
    return row


@pytest.mark.guarantee("P1")
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_of_any_type_can_be_parked(database: Database, kind: str) -> None:
    """P1: what JSON can represent comes back unchanged, the rest as text."""
    row = park(database, {"order_id": 5, "value": ARGUMENTS[kind]})
    assert row.order_id == 5
    if isinstance(ARGUMENTS[kind], str):
        assert row.arguments["value"] == ARGUMENTS[kind]


@pytest.mark.guarantee("P1")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    st.dictionaries(
        st.text(max_size=5) | st.just("request_id") | st.just("order_id"),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(), max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ),
        max_size=4,
    ),
    st.text(st.characters(), max_size=20),
)  # fmt: skip
def test_json_arguments_come_back_unchanged(database: Database, arguments: dict[str, Any], words: str) -> None:
    """P1: names, ids and errors may be any text."""
    row = park(database, arguments, task=words, message_id=words, error=words, first_error=words, attempts=10**12)
    assert row.arguments == json.loads(json.dumps(arguments))


@pytest.mark.guarantee("P1")
def test_duplicate_message_is_parked_once(database: Database) -> None:
    """P1: another payload with the same id is another job."""
    first = park(database, {"order_id": 1}, message_id="twice")
    assert park(database, {"order_id": 1}, message_id="twice").dead_job_id == first.dead_job_id
    assert park(database, {"order_id": 2}, message_id="twice").dead_job_id != first.dead_job_id
    with database.transaction() as conn:
        assert dead_jobs.mark_job_replayed(conn, first.dead_job_id, NOW)
    second = park(database, {"order_id": 1}, message_id="twice")
    assert second.dead_job_id != first.dead_job_id
    with database.transaction() as conn:
        assert dead_jobs.discard_job(conn, second.dead_job_id, "settled by phone", NOW)
    assert park(database, {"order_id": 1}, message_id="twice").dead_job_id != second.dead_job_id
