"""Does each invariant bite?  What must never be is planted by the owner, past every guard, and must be found by name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, create_engine, text

from models import invariants
from tests.plugins.market import Market

pytestmark = pytest.mark.breaks_invariants("each test plants what must never be")
NOW = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def planted(market: Market, database_url: str) -> Iterator[Connection]:
    """A small past (one cancelled through NPB, one alert unlocked, one waiting), and an owner whom no trigger stops."""
    market.at(NOW - timedelta(days=30))
    lot = market.lot(quantity=100)
    for order_id in (1, 2, 3):
        market.done("members.record", member_id=f"b{order_id}", handle=f"B{order_id}", email=f"b{order_id}@example.org")
        line = {"lot_id": lot, "quantity": 10}
        market.done("orders.submit", order_id=order_id, buyer_id=f"b{order_id}", seller_id="seller", lines=[line])
    market.at(NOW - timedelta(days=8))
    for order_id in (1, 2):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.stage.advance(NOW)
    market.done("orders.cancel", order_id=1, member_id="seller")
    engine = create_engine(database_url)
    with engine.connect() as conn:
        assert invariants.check(conn, NOW) == []
        conn.execute(text("SET session_replication_role = replica"))
        yield conn
        conn.rollback()
    engine.dispose()


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        ("UPDATE unwind.alerts SET unlocked_at = unlocks_at - interval '1 second'", "before its instant"),
        ("DELETE FROM unwind.events WHERE type = 'npb.unlocked'", "one event for being unlocked"),
        ("DELETE FROM unwind.events WHERE type = 'orders.cancelled'", "exactly one cancellation"),
        ("UPDATE unwind.alerts SET state = 'open', closed_at = NULL WHERE order_id = 1", "no open alert"),
        ("UPDATE unwind.alerts SET unlocks_at = unlocks_at + interval '2 days'", "open and mature"),
        ("UPDATE unwind.orders SET basis = 'NPX' WHERE order_id = 1", "penalty that the buyer had not accepted"),
        ("UPDATE unwind.orders SET basis = 'OCR_BUYER' WHERE order_id = 1", "cancel request that was not open"),
        ("UPDATE unwind.orders SET basis = 'NSS' WHERE order_id = 1", "came back whole where they may"),
        (
            "INSERT INTO unwind.strikes (order_id, member_id, role, at) VALUES (3, 'b3', 'buyer', '2026-03-01Z')",
            "A strike is of an order",
        ),
        ("UPDATE unwind.lots SET quantity = quantity + 1", "journal adds up"),
        ("UPDATE unwind.order_lines SET returned = 9 WHERE order_id = 1", "stands in the journal once"),
        ("UPDATE unwind.orders SET version = version + 1 WHERE order_id = 3", "numbered from 1 without a gap"),
        ("UPDATE unwind.orders SET status = 'SHIPPED' WHERE order_id = 3", "Every change of status has its event"),
        ("UPDATE unwind.events SET at = at - interval '90 days' WHERE seq = 2", "never go back"),
        ("DELETE FROM unwind.notices", "that is kept has its notice"),
        ("UPDATE unwind.outbox SET state = 'dead' WHERE order_id = 1", "seen among the dead jobs"),
        ("UPDATE unwind.alerts SET unlocked_at = NULL WHERE order_id = 2", "No alert stays locked"),
        ("UPDATE unwind.outbox SET state = 'due', due_at = '2026-03-01Z'", "longer than a minute"),
        (
            (
                "INSERT INTO unwind.removals (order_id, requested_by, state, lines, requested_at) "
                "VALUES (1, 'buyer', 'pending', '[]', '2026-03-01Z'); "
                "INSERT INTO unwind.outbox (key, task, order_id, payload, state, promised_at, due_at) "
                "VALUES ('x', 'removals.cancel_pending', 1, '{}', 'done', '2026-03-01Z', '2026-03-01Z')"
            ),
            "no pending removal request",
        ),
    ],
)
def test_what_must_never_be_is_found(planted: Connection, plant: str, sentence: str) -> None:
    """promises.md, Invariants: each is a query that must come back empty, and must not always do so."""
    for statement in plant.split("; "):
        planted.execute(text(statement))
    found = [violation.sentence for violation in invariants.check(planted, NOW + timedelta(hours=1))]
    assert any(sentence in one for one in found), found


def test_every_sentence_is_said_once() -> None:
    """A report names each promise by its sentence."""
    sentences = [sentence for sentence, _ in (*invariants.ALWAYS, *invariants.IN_TIME)]
    assert len(set(sentences)) == len(sentences)
