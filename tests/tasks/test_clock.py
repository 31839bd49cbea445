"""Long outages, and a database clock that is set back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from models.integrity.violation_log import AuditPositionRow
from models.submissions import SubmissionRow
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

DAY = timedelta(days=1)


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        yield connection


@pytest.mark.guarantee("P3")
def test_after_an_outage_of_45_days_one_sweep_unlocks_and_notifies_once(market: Market) -> None:
    for order_id in (1, 2, 3, 4):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3, 4):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.at(FILED + DAY)
    market.done("npb.remove", order_id=4, member_id="seller")
    market.at(FILED + 45 * DAY)
    unlocked = [market.done("npb.scan_open_alerts")["unlocked"] for _ in range(3)]
    assert unlocked == [3, 0, 0]
    notices = market.notices(event="npb_unlocked", recipient="seller")
    assert {notice.order_id for notice in notices} == {1, 2, 3}
    assert len(notices) == 3
    assert market.code("orders.cancel", order_id=1, member_id="seller") is None


def test_a_timeline_never_runs_backwards_when_the_clock_is_set_back(market: Market) -> None:
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK)
    market.done("npb.accept_penalty", order_id=1003, member_id="buyer")
    market.at(FILED + WEEK - timedelta(hours=2))
    market.done("orders.cancel", order_id=1003, member_id="seller")
    instants = [event.at for event in market.events(order_id=1003)]
    assert instants == sorted(instants)
    assert instants[-1] >= FILED + WEEK


def test_an_alert_waits_again_when_the_clock_is_set_back_before_it_is_due(market: Market) -> None:
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK - timedelta(hours=1))
    assert market.done("npb.scan_open_alerts")["unlocked"] == 0
    assert market.code("orders.cancel", order_id=1003, member_id="seller") == "TOO_EARLY"


def test_retries_keep_their_delay_when_the_clock_is_set_back(market: Market, owner: psycopg.Connection) -> None:
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    now = market.simulation.clock.instant
    market.do("outbox.relay")
    owner.execute("SELECT unwind.submit_command('orders.options', '{\"order_id\": 1003}')")
    owner.execute("UPDATE unwind.submissions SET due_at = %s", [now + timedelta(seconds=30)])
    owner.execute(
        "UPDATE unwind.notices SET state = 'pending', sent_at = NULL, next_try_at = %s", [now + timedelta(minutes=5)]
    )
    market.at(now - DAY)
    for _ in range(2):
        market.do("outbox.relay")
    (submission,) = market.stored(SubmissionRow)
    assert submission.due_at == now - DAY + timedelta(seconds=30)
    assert {notice.next_try_at for notice in market.notices()} == {now - DAY + timedelta(minutes=5)}


def test_the_nightly_check_runs_after_the_clock_was_years_ahead(market: Market) -> None:
    now = market.simulation.clock.instant
    for at in (now + 4000 * DAY, now):
        market.at(at)
        for _ in range(40):
            market.do("audit.check_everything")
    (night,) = market.stored(AuditPositionRow, name="night")
    assert night.position == (now - timedelta(hours=3)).toordinal()
