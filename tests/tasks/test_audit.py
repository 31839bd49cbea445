"""Periodic checks of the invariants: violations are found, reported once, and closed when fixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import create_engine, text

from models.feed import FEED_BASE
from models.integrity import invariants, violation_log
from models.integrity.violation_log import AuditPositionRow
from models.sweeps import SweepRow
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url
from tests.waiting import wait_until

pytestmark = pytest.mark.breaks_invariants("each test plants what must never be, and most fix it")
FEE = "Replaying an order's events gives its row"


def falsify(database_url: str, statement: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        assert conn.execute(text(statement)).rowcount > 0
    engine.dispose()


def open_violations(market: Market) -> dict[str, list[str]]:
    with market.simulation.database.transaction() as conn:
        return {sentence: ids for sentence, ids in violation_log.open_violations(conn).items() if sentence == FEE}


def audit_event_types(market: Market) -> list[str]:
    return [event.type for event in market.events(note=FEE)]


def run_nightly_check(market: Market) -> dict[str, list[str]]:
    violations: dict[str, list[str]] = {}
    for _ in range(40):
        violations |= market.done("audit.check_everything")["violations"]
    return violations


def test_a_violation_is_reported_once_and_stays_open(market: Market, database_url: str) -> None:
    market.order(1003)
    falsify(database_url, "UPDATE unwind.orders SET status = 'PACKED', fee = fee + 1")
    for _ in range(2):
        assert market.done("audit.check_invariants")["violations"][FEE] == ["1003"]
        market.at(market.simulation.clock.instant + timedelta(minutes=1))
    assert open_violations(market) == {FEE: ["1003"]}
    assert audit_event_types(market) == ["audit.violated"]
    changes = [event["data"]["changes"]["audit"] for event in market.feed() if event["type"] == "audit.violated"]
    assert {"sentence": FEE, "ids": ["1003"]} in changes


def test_a_fixed_violation_is_closed_by_the_next_full_check(market: Market, database_url: str) -> None:
    market.order(1003)
    falsify(database_url, "UPDATE unwind.orders SET fee = fee + 1")
    market.do("audit.check_invariants")
    falsify(database_url, "UPDATE unwind.orders SET fee = fee - 1")
    market.do("audit.check_invariants")
    assert open_violations(market) == {FEE: ["1003"]}
    run_nightly_check(market)
    assert open_violations(market) == {}
    assert audit_event_types(market) == ["audit.violated", "audit.settled"]


def test_everything_is_checked_once_a_night_in_slices(market: Market, database_url: str) -> None:
    market.order(1003)
    run_nightly_check(market)
    falsify(database_url, "UPDATE unwind.orders SET fee = fee + 1")
    assert run_nightly_check(market) == {}
    market.at(market.simulation.clock.instant + timedelta(days=1))
    assert FEE in run_nightly_check(market)
    assert market.stored_one(SweepRow, name="audit.check_everything").found >= 1


def test_rows_of_a_transaction_that_commits_late_are_checked(market: Market, database_url: str) -> None:
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
        conn.execute(text("UPDATE unwind.audit_positions SET position = '2000000000' WHERE name = 'order'"))
        scope, _ = violation_log.recent_violation_scope(conn, market.simulation.clock.instant)
        assert 1003 in scope["orders"]  # and rows of transactions that other databases of this server delayed
        violations = invariants.query_invariants(conn, market.simulation.clock.instant, in_time=False, scope=scope)
    assert (
        "An order's events are numbered from 1 without a gap, and the last number is its version or its unlock"
        in violations
    )


def test_checks_of_recent_changes_go_on_after_a_move_to_a_server_with_lower_transaction_ids(
    market: Market, database_url: str
) -> None:
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text(FEED_BASE.format(base=1_000_000)))
    engine.dispose()
    market.order(1003)
    newest = max(event.written_in for event in market.events())

    def reaches_the_newest_event() -> bool:
        market.do("audit.check_invariants")
        return bool(market.stored_one(AuditPositionRow, name="written_in").position >= newest)

    wait_until(reaches_the_newest_event, what="the end of transactions in other databases of this server")


def test_concurrent_checks_run_once(market: Market, database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url)) as second:
        second.execute("INSERT INTO unwind.named_locks VALUES ('audit.check_invariants')")
        second.commit()
        second.execute("SELECT FROM unwind.named_locks WHERE name = 'audit.check_invariants' FOR UPDATE")
        assert market.done("audit.check_invariants") == {"violations": {}}
        assert market.count(SweepRow, name="audit.check_invariants") == 0


def test_recent_changes_are_checked_after_a_slice_that_is_in_progress(market: Market, database_url: str) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    market.do("audit.check_everything")  # inserts the lock's row
    engine = create_engine(database_url)
    with psycopg.connect(libpq_url(database_url), autocommit=True) as observer, ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            violation_log.log_violations_of_next_invariant(conn, market.simulation.clock.instant)
            run = pool.submit(market.done, "audit.check_invariants")
            wait_until(lambda: run.done() or observer.execute(waiting).rowcount)
        assert run.result() == {"violations": {}}
        assert market.count(SweepRow, name="audit.check_invariants") == 1
    engine.dispose()


_LATE_EVENT = """
    INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
    SELECT order_id, 7, last_event_at, 'orders.status_set', 'seller', 'seller', status, status, '', '{}'
    FROM unwind.orders WHERE order_id = 1003
"""
