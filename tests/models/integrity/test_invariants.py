"""Tests of the invariants: each finds a violation that the test inserts as owner, and names it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from models.integrity import audit, invariants
from tests.models.corruptions import PLANTINGS, Planting
from tests.plugins.seed_history import LATER

ASKED = (*invariants.ALWAYS, *invariants.IN_TIME)


@pytest.fixture
def planted(past: Engine) -> Iterator[Connection]:
    """The owner, whom no trigger stops, in a transaction that is rolled back."""
    with past.connect() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE unwind.audit_positions SET number = 0"))  # all of it came since somebody last asked
        yield conn
        conn.rollback()


def test_the_past_is_as_it_must_be(planted: Connection) -> None:
    """What is planted is the only fault there is."""
    assert invariants.check(planted, LATER) == []


@pytest.mark.guarantee("P6", "P4")
@pytest.mark.parametrize("planting", PLANTINGS, ids=lambda planting: planting.sentence)
def test_what_must_never_be_is_found_by_its_name(planted: Connection, planting: Planting) -> None:
    """Invariants: the question of everything finds it and names the row, and so does that of what is fresh."""
    (asked,) = [one for one in ASKED if one.sentence.startswith(planting.sentence)]
    for statement in planting.statement.split(";"):
        assert planted.exec_driver_sql(statement.replace("%", "%%")).rowcount != 0
    named = the_name(planted, planting.named)
    now = LATER + timedelta(minutes=10)
    assert named in asked.find_violations(planted, now)
    scope, _ = audit.recent_scope(planted, now)
    assert named in asked.find_violations(planted, now, scope)


def test_nothing_else_is_named(planted: Connection) -> None:
    """One wrong row is one id, in everything and in what is fresh."""
    planted.execute(text("UPDATE unwind.orders SET fee = fee + 1 WHERE order_id = 3"))
    scope, _ = audit.recent_scope(planted, LATER)
    wanted = [("Per order the lines", ["3"]), ("Replaying an order's", ["3"])]
    for found in (invariants.check(planted, LATER), invariants.check(planted, LATER, scope=scope)):
        assert [(one.sentence[: len(begin)], one.ids) for one, (begin, _) in zip(found, wanted, strict=True)] == wanted


def test_every_invariant_has_a_planting() -> None:
    """No question that could never find anything."""
    never = [one.sentence for one in ASKED if not any(one.sentence.startswith(p.sentence) for p in PLANTINGS)]
    assert never == []


def test_every_group_of_the_promises_is_asked() -> None:
    """Nine groups."""
    assert {one.group for one in ASKED} == set(range(1, 10))


def test_every_sentence_is_said_once() -> None:
    """A report names each promise by its sentence."""
    sentences = [one.sentence for one in ASKED]
    assert len(set(sentences)) == len(sentences)


def test_a_question_that_cannot_be_narrowed_reads_little() -> None:
    """What is asked whole every minute stands on few rows: dead ones, and those that an index of open ones holds."""
    whole = [one.sentence.split()[:5] for one in ASKED if not one.has_scope_marker]
    assert len(whole) == 6, whole


def the_name(conn: Connection, named: str) -> str:
    """Rows that number themselves are named by their order."""
    kind, _, order_id = re.sub(r"[{}]", "", named).partition(":")
    lookups = {
        "alert": "SELECT alert_id FROM unwind.alerts WHERE order_id = :id",
        "ocr": "SELECT ocr_id FROM unwind.ocrs WHERE order_id = :id",
        "removal": "SELECT removal_id FROM unwind.removals WHERE order_id = :id",
        "fee": "SELECT outbox_id FROM unwind.outbox WHERE key = 'fee:1' AND order_id = :id",
        "told": "SELECT outbox_id FROM unwind.outbox WHERE key = 'order_cancelled:1:4:seller' AND order_id = :id",
        "dead": "SELECT max(dead_job_id) FROM unwind.dead_jobs",
    }
    if not named.startswith("{"):
        return named
    return str(conn.execute(text(lookups[kind]), {"id": int(order_id)} if order_id else {}).scalar_one())
