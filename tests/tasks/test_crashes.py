"""Crashes before and after every statement, at the commit, and while publishing or sending email."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from models import outbox
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.integrity import invariants
from tasks.process_services import services
from tests.plugins.market import FILED, WEEK, Market
from tests.tasks.crashes import (
    CrashPoints,
    DatabaseSnapshot,
    Died,
    MailStub,
    PublisherStub,
    Way,
    kill_process,
    raise_error,
    run_in_child,
    terminate_session,
    without_random_values,
)
from workers.app import app

UNLOCKED = FILED + WEEK
LATE = timedelta(hours=1)


@dataclass(frozen=True)
class Work:
    task: str
    prepare: Callable[[Market], None]
    min_points: int
    arguments: dict[str, Any] | None = None
    later: timedelta = timedelta(0)
    """How much later the retry runs: leases and publish intervals must expire first."""
    follow_up: str | None = None
    """The task that a relay would send for what a crash left."""


def three_due(market: Market) -> None:
    """Three orders with open alerts: the first has a pending removal, the second sold its lot out."""
    for n in (1, 2, 3):
        market.done("members.record", member_id=f"b{n}", handle=f"B{n}", email=f"b{n}@example.org")
        lot = market.lot(500 + n, item={"no": f"n{n}", "type": "PART"}, unit_price="75", quantity=10 if n == 2 else 30)
        line = {"lot_id": lot, "quantity": 10}
        market.done("orders.submit", order_id=n, buyer_id=f"b{n}", seller_id="seller", lines=[line])
    lines = [{"line_no": 1, "quantity": 2}]
    market.done("removals.request", order_id=1, member_id="b1", lines=lines)
    market.simulation.advance(FILED)
    for n in (1, 2, 3):
        market.done("npb.file", order_id=n, member_id="seller", comment="no payment")


def unlocked(market: Market) -> None:
    three_due(market)
    market.simulation.advance(UNLOCKED)


def mature(market: Market) -> None:
    three_due(market)
    market.simulation.process_outbox()
    market.at(UNLOCKED)


def cancelled(market: Market) -> None:
    unlocked(market)
    for n in (1, 2):
        market.simulation.do("orders.cancel", order_id=n, member_id="seller")


def left_by_a_wakeup(market: Market) -> None:
    cancelled(market)
    market.simulation.clock.instant += outbox.REPUBLISH_INTERVAL


def emails_recorded(market: Market) -> None:
    cancelled(market)
    for task in ("notices.tell_seller", "notices.tell_buyer"):
        retry_on_conflict(app.tasks[task].run)


def two_months(market: Market) -> None:
    cancelled(market)
    market.at(datetime(2026, 5, 10, tzinfo=UTC))


def billed(market: Market) -> None:
    """One issued bill, which is unpaid."""
    market.order(1, [(market.lot(500, unit_price="750"), 1)])
    market.simulation.advance(datetime(2026, 4, 5, 4, tzinfo=UTC))


PAY = {
    "seller_id": "seller",
    "billing_month": "2026-03",
    "amount": "25.00",
    "payment_id": "p-1",
    "request_id": "r-3",
}
CANCEL = {"order_id": 1, "member_id": "seller", "request_id": "r-1"}
MANY = {"orders": [{"order_id": n, "member_id": "seller"} for n in (1, 2, 2)], "request_id": "r-2"}
WORKS = (
    Work("orders.cancel", unlocked, 30, CANCEL),
    Work("orders.cancel_many", unlocked, 40, MANY),
    Work("npb.scan_open_alerts", mature, 8, follow_up="notices.tell_seller"),
    Work("credits.post_to_next_invoice", cancelled, 15),
    Work("removals.cancel_pending", cancelled, 20),
    Work("bills.issue", two_months, 40),
    Work("bills.record_payment", billed, 10, PAY),
    Work("notices.deliver", emails_recorded, 15, later=LATE),
    Work("outbox.relay", left_by_a_wakeup, 8, later=LATE),
)


class CrashTest:
    def __init__(self, market: Market, database_url: str, work: Work, points: CrashPoints) -> None:
        self.work, self.points, self.simulation = work, points, market.simulation
        work.prepare(market)
        market.simulation.database.dispose()
        market.simulation.database = db.connect(database_url, clock=market.simulation.clock)
        db.set_database(market.simulation.database)
        self.snapshot = DatabaseSnapshot(database_url)
        self.at = self.simulation.clock.instant
        self.points.watch(self.simulation.database.engine)
        self.judge = db.connect(database_url, as_app=False)
        self.run(0, None)  # runs the engine's one-time queries, so later runs have the same points
        self.expected_state, self.names = self.run(0, None)

    def body(self) -> str:
        if self.work.arguments is None:
            retry_on_conflict(app.tasks[self.work.task].run)
            return ""
        return without_random_values(self.simulation.execute(self.work.task, self.work.arguments, "message"))

    def run(self, number: int, way: Way | None) -> tuple[dict[str, Any], list[str]]:
        self.snapshot.restore()
        self.simulation.clock.instant = self.at
        first = ""
        self.simulation.database.engine.dispose()  # a new connection per run keeps the numbers of points stable
        publisher_stub, mail_stub = PublisherStub(self.points), MailStub(self.points)
        services.publisher = publisher_stub
        services.mailer = mail_stub
        self.points.arm(number, way)
        if way is kill_process:
            assert run_in_child(self._alone) == 9
        else:
            with contextlib.suppress(Died, DBAPIError):
                first = self.body()
            assert self.points.struck == (way is not None)
        names = self.reached = list(self.points.names)
        if way is not None:
            self.simulation.database.engine.dispose()
            self.snapshot.wait_for_dead_sessions()
        self.points.arm(0, None)
        self.simulation.clock.instant = self.at + self.work.later
        again = self.body()
        if self.work.follow_up is not None:
            retry_on_conflict(app.tasks[self.work.follow_up].run)
        state: dict[str, Any] = dict(self.snapshot.state())
        state["answer"] = first if way is None else again
        return state | {"published": len(publisher_stub.published), "sent": sorted(mail_stub.sent)}, names

    def _alone(self) -> None:
        self.simulation.database.engine.dispose(close=False)
        self.body()

    def broken(self) -> invariants.Violations:
        self.judge.dispose()
        with self.judge.transaction() as conn:
            return broken_invariants(conn, self.simulation.clock.instant)

    def close(self) -> None:
        self.judge.dispose()
        self.snapshot.close()


def broken_invariants(conn: Connection, now: datetime) -> invariants.Violations:
    return invariants.query_invariants(conn, now, in_time=False)


def crash_at(crash_test: CrashTest, way: Way, numbers: list[int]) -> None:
    for number in numbers:
        state, _ = crash_test.run(number, way)
        point = f"{crash_test.work.task} died at point {number}, {crash_test.names[number - 1]}"
        assert way is kill_process or crash_test.reached[:number] == crash_test.names[:number], point
        wrong = {
            part: (state[part], crash_test.expected_state[part])
            for part in state
            if state[part] != crash_test.expected_state[part]
        }
        if way is kill_process:
            # The killed child's published messages and emails are lost; the outbox rows show that they are sent again.
            wrong = {part: values for part, values in wrong.items() if part not in ("published", "sent")}
        assert not wrong, (point, wrong)
        if number % 5 == 1 or "commit" in point:
            assert crash_test.broken() == {}, point


OTHER_WORKS = [pytest.param(work, id=work.task) for work in WORKS[1:]]
EACH = [pytest.param(work, id=work.task) for work in WORKS]


def crash_at_every_point(market: Market, database_url: str, points: CrashPoints, work: Work) -> None:
    with contextlib.closing(CrashTest(market, database_url, work, points)) as crash_test:
        assert len(crash_test.names) >= work.min_points, crash_test.names
        assert {"before commit", "after commit"} <= set(crash_test.names)
        crash_at(crash_test, raise_error, list(range(1, len(crash_test.names) + 1)))


@pytest.mark.guarantee("P1", "P2", "P4")
def test_a_cancellation_retried_after_a_crash_at_any_point_ends_the_same(
    market: Market, database_url: str, points: CrashPoints
) -> None:
    crash_at_every_point(market, database_url, points, WORKS[0])


@pytest.mark.long
@pytest.mark.parametrize("work", OTHER_WORKS)
def test_any_task_retried_after_a_crash_at_any_point_ends_the_same(
    market: Market, database_url: str, points: CrashPoints, work: Work
) -> None:
    crash_at_every_point(market, database_url, points, work)


@pytest.mark.long
@pytest.mark.parametrize("work", EACH)
def test_a_lost_database_session_at_any_point_ends_the_same(
    market: Market, database_url: str, points: CrashPoints, admin: psycopg.Connection, work: Work
) -> None:
    with contextlib.closing(CrashTest(market, database_url, work, points)) as crash_test:
        numbers = [
            n
            for n, name in enumerate(crash_test.names, start=1)
            if re.match("before (?!publishing|sending)|after commit", name)
        ]
        crash_at(crash_test, terminate_session(admin), numbers)


@pytest.mark.long
@pytest.mark.parametrize("work", EACH)
def test_a_killed_process_ends_the_same(market: Market, database_url: str, points: CrashPoints, work: Work) -> None:
    with contextlib.closing(CrashTest(market, database_url, work, points)) as crash_test:
        numbers = [n for n, name in enumerate(crash_test.names, start=1) if n % 9 == 1 or "commit" in name]
        crash_at(crash_test, kill_process, numbers)
