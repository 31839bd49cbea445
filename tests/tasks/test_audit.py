"""Is a broken promise found by itself, told once to whoever listens, and let go of when it is mended?"""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import create_engine, text

from models import feed
from models.integrity import audit, invariants
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url

pytestmark = pytest.mark.breaks_invariants("each test plants what must never be, and most fix it")
FEE = "Replaying an order's events gives its row"


def falsify(database_url: str, statement: str) -> None:
    """Past every guard, as nobody but the owner of the server can."""
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        assert conn.execute(text(statement)).rowcount > 0
    engine.dispose()


def is_open(market: Market) -> dict[str, list[str]]:
    """What is known to be broken, of replaying alone."""
    with market.simulation.database.transaction() as conn:
        return {one.sentence: one.ids for one in audit.open_violations(conn) if one.sentence == FEE}


def told(market: Market) -> list[str]:
    """What the timeline of the house says of it, in order."""
    rows = market.rows("SELECT type FROM unwind.events WHERE note = :note ORDER BY event_id", note=FEE)
    return [row.type for row in rows]


def night_after_night(market: Market) -> dict[str, list[str]]:
    """Ticks until everything was asked."""
    found: dict[str, list[str]] = {}
    for _ in range(40):
        found |= market.done("audit.check_everything")["violations"]
    return found


def test_what_is_broken_is_found_told_once_and_kept_in_sight(market: Market, database_url: str) -> None:
    """promises.md, Invariants: an event, a row that a gauge counts, and the guilty id; asking again says nothing new."""
    market.order(1003)
    falsify(database_url, "UPDATE unwind.orders SET status = 'PACKED', fee = fee + 1")
    for _ in range(2):
        assert market.done("audit.check_invariants")["violations"][FEE] == ["1003"]
        market.at(market.simulation.clock.instant + timedelta(minutes=1))
    assert is_open(market) == {FEE: ["1003"]}
    assert told(market) == ["audit.violated"]
    with market.simulation.database.transaction() as conn:
        events = [
            event["data"] for _, event in feed.events_after(conn, None, 1000) if event["type"] == "audit.violated"
        ]
    assert {"sentence": FEE, "ids": ["1003"]} in [event["changes"]["audit"] for event in events]


def test_what_is_mended_is_let_go_of_by_the_next_question_of_everything(market: Market, database_url: str) -> None:
    """It stays in sight until everything was asked, and then goes with an event of its own."""
    market.order(1003)
    falsify(database_url, "UPDATE unwind.orders SET fee = fee + 1")
    market.do("audit.check_invariants")
    falsify(database_url, "UPDATE unwind.orders SET fee = fee - 1")
    market.do("audit.check_invariants")
    assert is_open(market) == {FEE: ["1003"]}
    night_after_night(market)
    assert is_open(market) == {}
    assert told(market) == ["audit.violated", "audit.settled"]


def test_once_a_night_everything_is_asked_a_portion_a_tick(market: Market, database_url: str) -> None:
    """What is neither fresh nor in the slice is found at night; the same night nothing more is asked."""
    market.order(1003)
    night_after_night(market)
    falsify(database_url, "UPDATE unwind.orders SET fee = fee + 1")
    assert night_after_night(market) == {}
    market.at(market.simulation.clock.instant + timedelta(days=1))
    assert FEE in night_after_night(market)
    assert market.row("SELECT found FROM unwind.sweeps WHERE name = 'audit.check_everything'").found >= 1


def test_what_was_written_by_a_transaction_that_ends_late_is_not_passed_over(market: Market, database_url: str) -> None:
    """The mark waits for transactions that still run: their rows have lower numbers than those that were seen."""
    market.order(1003)
    market.order(1004)
    engine = create_engine(database_url)
    with engine.connect() as late:
        late.execute(text("UPDATE unwind.sweeps SET found = found WHERE false"))
        late.execute(text("SELECT pg_current_xact_id()"))
        late.execute(text("SET LOCAL session_replication_role = replica"))
        late.execute(text(_LATE_EVENT))
        for _ in range(2):
            market.do("audit.check_invariants")  # the slices come round, the mark stays
        late.commit()
    engine.dispose()
    with market.simulation.database.transaction() as conn:
        conn.execute(text("UPDATE unwind.audit_marks SET number = 2000000000 WHERE name = 'order'"))
        scope, _ = audit.recent_scope(conn, market.simulation.clock.instant)
        assert 1003 in scope.orders  # and whatever else was written while anybody on this server was at work
        found = invariants.check(conn, market.simulation.clock.instant, in_time=False, scope=scope)
    assert "The events of an order are numbered from 1 without a gap, and their number is its version" in [
        one.sentence for one in found
    ]


def test_two_that_ask_at_once_do_not_ask_twice(market: Market, database_url: str) -> None:
    """Two beats are no trouble: whoever comes second leaves it to the first."""
    with psycopg.connect(libpq_url(database_url)) as other:
        other.execute("INSERT INTO unwind.named_locks VALUES ('audit.check_invariants')")
        other.commit()
        other.execute("SELECT FROM unwind.named_locks WHERE name = 'audit.check_invariants' FOR UPDATE")
        assert market.done("audit.check_invariants") == {"violations": {}}
        assert market.rows("SELECT FROM unwind.sweeps WHERE name = 'audit.check_invariants'") == []


_LATE_EVENT = """
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT order_id, 7, last_event_at, 'orders.status_set', 'seller', 'seller', status, status, '', '{}'
    FROM unwind.orders WHERE order_id = 1003
"""
