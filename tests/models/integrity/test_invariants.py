"""Tests of the invariants: each finds a violation that the test inserts as owner, and names it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import InstrumentedAttribute

from benchmarks.market import Market, build
from models import sql
from models.alerts import AlertRow
from models.db import database as db
from models.db.postgres_address import PostgresAddress
from models.dead_jobs import DeadJobRow
from models.integrity import invariants, violation_log
from models.ocr import OcrRow
from models.outbox import OutboxRow
from models.removals import RemovalRow
from tests.models.corruptions import CORRUPTIONS, Corruption
from tests.models.seed_history import LATER
from tests.plugins.postgres import programs
from tests.plugins.servers import fresh_database, in_database, libpq_url
from tests.plugins.stored_rows import load_column
from workers.embedded.client import ServerUrls

CANCEL_ALL = """
    WITH cancelled AS (
        UPDATE unwind.orders SET status = 'CANCELLED', basis = 'NPB', cancelled_by = 'seller', cancelled_at = now()
        RETURNING order_id, seller_id
    )
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT order_id, 4, now(), 'orders.cancelled', seller_id, 'seller', 'NPB', 'CANCELLED', '', '{}' FROM cancelled
"""
QUERIES = Path(sql.__file__).parent / "invariants"
INVARIANTS = (*invariants.ALWAYS, *invariants.IN_TIME)


@pytest.fixture
def owner(seeded_engine: Engine) -> Iterator[Connection]:
    """A transaction of the owner with disabled triggers, rolled back at the end."""
    with seeded_engine.connect() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        # The next recent check covers everything.
        conn.execute(text("UPDATE unwind.audit_positions SET position = '0' WHERE name <> 'seller'"))
        yield conn
        conn.rollback()


def test_history_without_corruption_breaks_no_invariant(owner: Connection) -> None:
    assert invariants.query_invariants(owner, LATER) == {}


@pytest.mark.guarantee("P6", "P4")
@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.sentence)
def test_corruption_is_reported_by_a_full_and_by_a_recent_check(owner: Connection, corruption: Corruption) -> None:
    (invariant,) = [invariant for invariant in INVARIANTS if invariant.sentence.startswith(corruption.sentence)]
    for statement in corruption.statement.split(";"):
        assert owner.exec_driver_sql(statement.replace("%", "%%")).rowcount != 0
    reported_id = resolve_id(owner, corruption.reported_id)
    now = LATER + timedelta(minutes=10)
    assert reported_id in invariant.find_violations(owner, now)
    scope, _ = violation_log.recent_violation_scope(owner, now)
    assert reported_id in invariant.find_violations(owner, now, scope)


def test_queries_run_in_psql_as_they_stand(seeded_engine: Engine) -> None:
    address = PostgresAddress.parse(seeded_engine.url.render_as_string(hide_password=False))
    values = dict.fromkeys(("orders", "sellers", "messages", "answers"), "NULL")
    values |= dict.fromkeys(("item_sellers", "item_nos"), "NULL::text[]") | {
        "now": f"timestamptz '{LATER}'",
        "part": "1",
    }
    words = [str(programs() / "psql"), "-XqtAv", "ON_ERROR_STOP=1"]
    words += [f"--set={name}={value}" for name, value in values.items()]
    words += [f"--file={path}" for path in sorted(QUERIES.glob("*.sql"))]
    words.append(f"--dbname={address.client_conninfo('test')}")
    done = subprocess.run(words, env=address.client_environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_full_check_is_quick_where_statistics_know_of_no_cancellation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str
) -> None:
    """As in a first busy hour. It took longer than a statement may (20 s) with nested loops."""
    orders = 4_000
    with fresh_database(servers, admin, template_database) as url:
        address = in_database(servers.admin_url, url.rpartition("/")[2])
        with psycopg.connect(libpq_url(address), autocommit=True) as conn:
            conn.execute("ALTER TABLE unwind.orders SET (autovacuum_enabled = off)")
            build(conn, Market(orders=orders, lines=0))
            with conn.transaction():
                conn.execute("SET LOCAL session_replication_role = replica")
                conn.execute(CANCEL_ALL)
        database = db.connect(url)
        with database.transaction() as checked:
            invariants.query_invariants(checked, database.clock.now(checked))
        database.dispose()


def test_one_corrupt_row_reports_one_id(owner: Connection) -> None:
    owner.execute(text("UPDATE unwind.orders SET fee = fee + 1 WHERE order_id = 3"))
    scope, _ = violation_log.recent_violation_scope(owner, LATER)
    expected = [("Per order the lines", ["3"]), ("Replaying an order's", ["3"])]
    for broken in (invariants.query_invariants(owner, LATER), invariants.query_invariants(owner, LATER, scope=scope)):
        assert [
            (sentence[: len(begin)], ids) for (sentence, ids), (begin, _) in zip(broken.items(), expected, strict=True)
        ] == expected


def test_every_invariant_has_a_corruption() -> None:
    untested = [
        invariant.sentence
        for invariant in INVARIANTS
        if not any(invariant.sentence.startswith(p.sentence) for p in CORRUPTIONS)
    ]
    assert untested == []


def test_every_group_of_invariants_is_checked() -> None:
    assert {invariant.group for invariant in INVARIANTS} == set(range(1, 10))


def test_sentences_are_unique() -> None:
    sentences = [invariant.sentence for invariant in INVARIANTS]
    assert len(set(sentences)) == len(sentences)


def test_at_most_seven_invariants_check_all_rows() -> None:
    unscoped = [invariant.sentence.split()[:5] for invariant in INVARIANTS if not invariant.has_scope]
    assert len(unscoped) == 7, unscoped


def resolve_id(conn: Connection, reported_id: str) -> str:
    """The id as it is reported; for rows with generated ids it is looked up by order."""
    kind, _, order_id = re.sub(r"[{}]", "", reported_id).partition(":")
    lookups: dict[str, tuple[InstrumentedAttribute[int], dict[str, Any]]] = {
        "alert": (AlertRow.alert_id, {}),
        "ocr": (OcrRow.ocr_id, {}),
        "removal": (RemovalRow.removal_id, {}),
        "fee": (OutboxRow.outbox_id, {"key": "fee:1"}),
        "notice": (OutboxRow.outbox_id, {"key": "order_cancelled:1:4:seller"}),
        "dead": (DeadJobRow.dead_job_id, {}),
    }
    if not reported_id.startswith("{"):
        return reported_id
    column, values = lookups[kind]
    *_, newest = load_column(conn, column, **values, **({"order_id": int(order_id)} if order_id else {}))
    return str(newest)
