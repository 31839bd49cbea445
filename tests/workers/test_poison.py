"""Tests that work that always fails stops no other work of its batch, queue or sweep, and is reported."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from click.testing import CliRunner

from models import bills
from models.bills import BillRow
from models.db import database as db
from models.integrity import month_audit
from models.integrity.invariants import query_invariants
from models.submissions import MAX_SUBMISSION_ATTEMPTS, SubmissionRow
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url
from tests.plugins.sql_interface import submit_command
from tests.plugins.stored_rows import DatabaseRows
from workers.cli.jobs import jobs
from workers.monitoring.doctor import marketplace
from workers.monitoring.doctor.findings import Finding
from workers.simulation.engine import Simulation

ORDERS = range(1, 8)
BAD = 4


@pytest.fixture
def market_with_orders(environment: Simulation, database_rows: DatabaseRows) -> Market:
    """Seven unpaid orders of eight days ago."""
    now = database_rows.server_time()
    environment.clock.instant = now - timedelta(days=8)
    market = Market(environment)
    for order_id in ORDERS:
        market.order(order_id)
    return market.at(now - timedelta(seconds=1))


@contextlib.contextmanager
def poisoned(database_url: str, table: str, when: str) -> Iterator[None]:
    """Make the database refuse one order's rows inside the block."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        owner.execute(
            f"CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {when} THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;"
            f"CREATE TRIGGER poison BEFORE INSERT OR UPDATE ON unwind.{table} FOR EACH ROW EXECUTE FUNCTION poison()"
        )
        try:
            yield
        finally:
            owner.execute("DROP FUNCTION poison CASCADE")


@pytest.mark.guarantee("P8")
def test_failing_command_stops_no_other_of_its_batch_and_can_be_requeued_in_bulk(
    market_with_orders: Market, database_url: str
) -> None:
    """P8: it is retried with growing delays, then parked, and requeued after the fix."""
    with psycopg.connect(libpq_url(database_url)) as conn:
        for order_id in ORDERS:
            submit_command(conn, "npb.file", {"order_id": order_id, "member_id": "seller"}, f"file-{order_id}")
    with poisoned(database_url, "alerts", f"NEW.order_id = {BAD}"):
        market_with_orders.at(market_with_orders.server_time()).do("submissions.drain")
        assert {alert.order_id for alert in market_with_orders.alerts()} == {n for n in ORDERS if n != BAD}
        waits = []
        for _ in range(MAX_SUBMISSION_ATTEMPTS - 1):
            (row,) = market_with_orders.stored(SubmissionRow, state="waiting")
            waits.append(row.due_at - market_with_orders.simulation.clock.instant)
            market_with_orders.at(row.due_at).do("submissions.drain")
        assert waits == sorted(waits), "ever later"
        assert waits[-1] > 100 * waits[0]
    (dead,) = market_with_orders.dead_jobs()
    assert (dead.task, dead.reason, dead.attempts) == ("npb.file", "FAILED", MAX_SUBMISSION_ATTEMPTS)
    assert CliRunner().invoke(jobs, ["replay", "--task", "npb.file"]).exit_code == 0
    market_with_orders.do("submissions.drain")
    assert sorted(alert.order_id for alert in market_with_orders.alerts()) == list(ORDERS)


@pytest.mark.guarantee("P8")
def test_failing_row_stops_no_other_of_its_sweep(market_with_orders: Market, database_url: str) -> None:
    """P8, P3: the batch is divided until the row is alone; every sweep retries it."""
    for order_id in ORDERS:
        market_with_orders.done("npb.file", order_id=order_id, member_id="seller")
        market_with_orders.at(market_with_orders.simulation.clock.instant + timedelta(seconds=1))
    market_with_orders.at(market_with_orders.simulation.clock.instant + timedelta(days=8))
    with poisoned(database_url, "events", f"NEW.order_id = {BAD} AND NEW.type = 'npb.unlocked'"):
        for unlocked in (len(ORDERS) - 1, 0):
            assert market_with_orders.done("npb.scan_open_alerts")["unlocked"] == unlocked
    assert [alert.order_id for alert in market_with_orders.alerts(unlocked_at=None)] == [BAD]
    assert market_with_orders.done("npb.scan_open_alerts")["unlocked"] == 1
    assert market_with_orders.alerts(unlocked_at=None) == []


@pytest.mark.guarantee("P8")
def test_failing_reminder_stops_no_other(market_with_orders: Market, database_url: str) -> None:
    """P8, N16, N17: for requests and alerts; every sweep retries it."""
    for order_id in ORDERS:
        if order_id % 2:
            market_with_orders.done(
                "ocr.file", order_id=order_id, member_id="buyer", reason="B_MUTUAL", comment="Please."
            )
        else:
            market_with_orders.done("npb.file", order_id=order_id, member_id="seller")
    market_with_orders.at(market_with_orders.simulation.clock.instant + timedelta(days=8)).done("npb.scan_open_alerts")
    market_with_orders.at(market_with_orders.simulation.clock.instant + timedelta(days=8))
    bad = "NEW.payload ->> 'event' LIKE '%reminder%' AND NEW.order_id IN (3, 4)"
    with poisoned(database_url, "outbox", bad):
        for handled in (len(ORDERS) - 2, 0):
            assert market_with_orders.done("reminders.scan")["reminded"] == handled
    assert reminded_orders(market_with_orders) == set(ORDERS) - {3, 4}
    assert market_with_orders.done("reminders.scan")["reminded"] == 2
    assert reminded_orders(market_with_orders) == set(ORDERS)


def reminded_orders(market: Market) -> set[int | None]:
    return {message.order_id for message in market.outbox() if "reminder" in message.payload.get("event", "")}


@pytest.mark.guarantee("P8")
def test_failing_bill_stops_no_other_bill_of_two_months(market: Market, database_url: str) -> None:
    """P8, R86: the month closes without that seller, whose bills follow in their order."""
    sellers = [f"s{n}" for n in range(1, 5)]
    for seller in sellers:
        market.done("members.record", member_id=seller, handle=seller, email=f"{seller}@example.org")
    buy(market, sellers, 0)
    market.at(datetime(2026, 4, 4, tzinfo=UTC))
    buy(market, sellers, 10)
    market.at(datetime(2026, 4, 5, 4, tzinfo=UTC))
    other_sellers = [seller for seller in sellers if seller != "s2"]
    with poisoned(database_url, "bills", "NEW.seller_id = 's2'"):
        for issued in (3, 0):
            assert market.done("bills.issue")["issued"] == issued
        assert (
            market.done("credits.post_manual", seller_id="s2", amount="1.00", staff="kim", comment="x")["bill"]
            == "2026-04"
        )
        market.at(datetime(2026, 5, 5, 4, tzinfo=UTC))
        for issued in (3, 0):
            assert market.done("bills.issue")["issued"] == issued
        assert billed(market) == {seller: ["2026-03", "2026-04"] for seller in other_sellers}
        assert [finding.code for finding in findings(market)] == ["BILLS_HELD"]
    assert market.done("bills.issue")["issued"] == 2
    assert billed(market) == {seller: ["2026-03", "2026-04"] for seller in sellers}
    assert findings(market) == []
    with db.current_database().transaction() as conn:
        months = month_audit.months_to_audit(conn)
        assert query_invariants(conn, market.simulation.clock.instant, months=months) == {}
        assert bills.list_held_bills(conn) == []
    (march, april), (its_march, its_april) = (
        [bill.total for bill in market.stored(BillRow, seller_id=seller)] for seller in ("s1", "s2")
    )
    assert (its_march, its_april) == (march, april - 1)


def buy(market: Market, sellers: Sequence[str], first: int) -> None:
    """One order of 750.00 from each seller."""
    for number, seller in enumerate(sellers, start=first + 1):
        lot = market.lot(500 + number, seller_id=seller, unit_price="750")
        line = {"lot_id": lot, "quantity": 1}
        market.done("orders.submit", order_id=number, buyer_id="buyer", seller_id=seller, lines=[line])


def findings(market: Market) -> list[Finding]:
    """The doctor's findings about held bills."""
    with db.current_database().transaction() as conn:
        return [*marketplace.check_bills_held(cast(Any, SimpleNamespace(conn=conn)))]


def billed(market: Market) -> dict[str, list[str]]:
    """The months of each seller's bills."""
    months: dict[str, list[str]] = defaultdict(list)
    for bill in sorted(market.stored(BillRow), key=attrgetter("billing_month")):
        months[bill.seller_id].append(f"{bill.billing_month:%Y-%m}")
    return months
