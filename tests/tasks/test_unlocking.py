"""Sweeps over many due alerts, in batches, alone and concurrently."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models import members, outbox, pauses
from models.alerts import AlertRow
from models.db import database
from models.events import EventRow
from models.outbox import OutboxRow
from models.unit_of_work import UnitOfWork
from policies.cases import AlertKind
from policies.timestamps import format_timestamp, parse_timestamp
from tasks import alerts, npb
from tasks.notices import record_notices_at_once
from tasks.sweeps import DueSweep, sweep
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url
from tests.tasks.crashes import CrashPoints, Died, raise_error
from workers.app import app

DUE = FILED + WEEK
DUE_LATER = FILED + 4 * WEEK
ORDERS = range(1, 8)


class ThirdBatch(CrashPoints):
    batches = 0

    def reach(self, name: str, connection: psycopg.Connection[Any] | None = None) -> None:
        self.batches += name.startswith("after WITH due AS")
        if self.batches == 3:
            self.batches += 1
            raise_error(connection)


@pytest.fixture
def due_alerts(market: Market) -> Market:
    for order_id in ORDERS:
        market.order(order_id)
    market.at(FILED)
    for order_id in ORDERS:
        market.done("npb.file", order_id=order_id, member_id="seller")
    return market.at(DUE)


def scan(limit: int) -> int:
    return sweep("npb.scan_open_alerts", alerts.UnlockSweep([AlertKind.NPB]), limit=limit)


def unlocked(market: Market) -> list[tuple[int, int | None, int, int]]:
    """(order, number of the unlock, events, outbox messages) of each unlocked alert."""
    return [
        (
            alert.order_id,
            alert.unlock_seq,
            market.count(EventRow, order_id=alert.order_id, type="npb.unlocked"),
            market.count(OutboxRow, OutboxRow.key.startswith(f"npb_unlocked:{alert.order_id}:")),
        )
        for alert in market.alerts(AlertRow.unlocked_at.is_not(None))
    ]


EACH_ONCE = [(order_id, 3, 1, 1) for order_id in ORDERS]


@contextlib.contextmanager
def locked_orders(database_url: str, *order_ids: int) -> Iterator[None]:
    with psycopg.connect(libpq_url(database_url)) as holder:
        holder.execute("SELECT FROM unwind.orders WHERE order_id = ANY (%s) FOR UPDATE", [list(order_ids)])
        yield
        holder.rollback()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_every_batch_size_unlocks_each_alert_once(due_alerts: Market, limit: int) -> None:
    """R41: alerts of one instant are ordered by id, so no batch repeats or skips one."""
    assert scan(limit) == len(ORDERS)
    assert unlocked(due_alerts) == EACH_ONCE
    assert scan(limit) == 0


def test_two_scans_share_what_is_due(due_alerts: Market, database_url: str) -> None:
    """R41: a scan skips rows that another one holds."""
    with locked_orders(database_url, 1, 2, 3):
        assert scan(2) == 4
    assert [row[0] for row in unlocked(due_alerts)] == [4, 5, 6, 7]
    assert scan(2) == 3
    assert unlocked(due_alerts) == EACH_ONCE


class Shared(DueSweep[Any]):
    def __init__(self) -> None:
        self.coming = [(4, 0), (4, 2), (3, 3), (4, 4)]

    def handle_batch(self, work: UnitOfWork[Any], after: Any, limit: int) -> tuple[int, int, Any]:
        return (*self.coming.pop(0), after)


@pytest.mark.usefixtures("market")
def test_a_sweep_continues_after_rows_that_another_sweep_handled() -> None:
    """R41: concurrent scans stop at no row that the other handled."""
    shared = Shared()
    assert sweep("npb.scan_open_alerts", shared, limit=4) == 5
    assert shared.coming == [(4, 4)]


def test_the_next_scan_finishes_a_killed_one(due_alerts: Market) -> None:
    ThirdBatch().watch(due_alerts.simulation.database.engine)
    with pytest.raises(Died):
        scan(2)
    assert len(unlocked(due_alerts)) == 4
    assert scan(2) == 3
    assert unlocked(due_alerts) == EACH_ONCE


def test_an_order_that_changed_after_the_scan_began_waits_for_the_next(due_alerts: Market) -> None:
    """R100: a timeline never runs backwards."""
    due_alerts.at(DUE + timedelta(seconds=1)).done("npb.respond", order_id=4, member_id="buyer", comment="Soon.")
    due_alerts.at(DUE)
    assert scan(100) == 6
    assert 4 not in {row[0] for row in unlocked(due_alerts)}
    instants = [event.at for event in due_alerts.at(DUE + WEEK).events(order_id=4)]
    assert instants == sorted(instants)


def test_sql_formats_timestamps_as_python_does(market: Market) -> None:
    for number in range(1, 6):
        market.order(number)
    for number, micro in enumerate((0, 1, 100_000, 120_300, 999_999), start=1):
        market.at(FILED + timedelta(minutes=number, microseconds=micro))
        market.done("npb.file", order_id=number, member_id="seller")
    market.at(DUE + timedelta(hours=1))
    assert scan(3) == 5
    unlocked_at = {event.changes["alert"]["unlocked_at"] for event in market.events(type="npb.unlocked")}
    assert unlocked_at == {format_timestamp(DUE + timedelta(hours=1))}
    messages = market.outbox(OutboxRow.key.startswith("npb_unlocked"))
    unlocks_at = {message.payload["facts"]["unlocks_at"] for message in messages}
    assert len(unlocks_at) == 5
    for at in unlocks_at:
        assert format_timestamp(parse_timestamp(at)) == at


@pytest.fixture(params=["npb", "nrs"])
def due_alert(market: Market, request: pytest.FixtureRequest) -> str:
    """The task that unlocks the alert which is due."""
    market.order(1)
    market.at(FILED)
    filed = {"npb": {"member_id": "seller"}, "nrs": {"member_id": "buyer", "comment": "no answer"}}[str(request.param)]
    market.done(f"{request.param}.file", order_id=1, **filed)
    market.at(DUE_LATER)
    return {"npb": "npb.scan_open_alerts", "nrs": "alerts.scan_seller_alerts"}[str(request.param)]


def unlock_notices(market: Market) -> list[tuple[str, str | None]]:
    """The state of each outbox message about an unlock, and the event of its notice if it has one."""
    events = {notice.key: notice.event for notice in market.notices()}
    messages = market.outbox(OutboxRow.key.contains("unlocked:"))
    return [(message.state, events.get(message.key)) for message in messages]


def test_a_sweep_records_its_notices_without_the_outbox(market: Market, due_alert: str) -> None:
    """R41: the party that waits is notified although thousands of emails are in the queue."""
    assert app.tasks[due_alert].run() == {"unlocked": 1}
    ((state, event),) = unlock_notices(market)
    assert event is not None
    assert (state, event.endswith("_unlocked")) == ("done", True)
    market.simulation.process_outbox()
    assert unlock_notices(market) == [(state, event)]


def test_a_relay_and_other_messages_leave_the_notices_to_their_sweep(
    market: Market, due_alert: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R41: otherwise the notices would wait in a queue, behind thousands of emails."""
    other = database.connect(database_url)

    def record_meanwhile(task: str, rows: Sequence[int]) -> None:
        with other.transaction() as conn:
            outbox.claim_for_publish(conn, market.simulation.clock.instant)
            outbox.claim_messages(conn, task, rows=[])
            record_notices_at_once(task, rows)

    monkeypatch.setattr("tasks.alerts.record_notices_at_once", record_meanwhile)
    assert app.tasks[due_alert].run() == {"unlocked": 1}
    assert [state for state, _ in unlock_notices(market)] == ["done"]
    other.dispose()


def test_a_pause_of_anything_leaves_the_notices_to_the_outbox(market: Market, due_alert: str) -> None:
    with market.simulation.database.transaction() as conn:
        pauses.pause(conn, "task", "notices.tell_seller", market.simulation.clock.instant)
    assert app.tasks[due_alert].run() == {"unlocked": 1}
    assert unlock_notices(market) == [("due", None)]


def test_a_notice_that_cannot_be_recorded_fails_no_sweep(
    market: Market, due_alert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(members, "load_member_contacts", None)
        assert app.tasks[due_alert].run() == {"unlocked": 1}
        assert unlock_notices(market) == [("due", None)]
    market.at(DUE_LATER + alerts.RELAY_UNLOCKS_AFTER)
    market.simulation.process_outbox()
    assert unlock_notices(market)[0][0] == "done"


def test_many_unlocks_are_left_to_the_outbox(due_alerts: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes share the notices of a large batch, and the sweep goes on."""
    monkeypatch.setattr(alerts, "MAX_UNLOCK_MESSAGES", len(ORDERS) - 1)
    woken: set[str] = set()
    monkeypatch.setattr(due_alerts.simulation.database, "wake", woken.add)
    assert npb.scan_open_alerts.run() == {"unlocked": len(ORDERS)}
    assert {state for state, _ in unlock_notices(due_alerts)} == {"due"}
    assert outbox.RELAY in woken
