"""What if nobody looks for weeks, or the database's clock steps back?  Levels, not edges; and no order's time runs back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

DAY = timedelta(days=1)


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody who may write what a test needs."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        yield connection


@pytest.mark.guarantee("P3")
def test_after_45_days_of_silence_one_sweep_unlocks_and_tells_everything_once(market: Market) -> None:
    """P3: found by the first sweep after its instant, however late that comes; what was answered meanwhile stays locked."""
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
    told = market.rows("SELECT order_id FROM unwind.notices WHERE event = 'npb_unlocked' AND recipient = 'seller'")
    assert sorted(row.order_id for row in told) == [1, 2, 3]
    assert market.code("orders.cancel", order_id=1, member_id="seller") is None


def test_a_clock_that_steps_back_turns_no_order_back(market: Market) -> None:
    """F50, rules of time: a decision is never earlier than what somebody did before, so the timeline only goes on."""
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK)
    market.done("npb.accept_penalty", order_id=1003, member_id="buyer")
    market.at(FILED + WEEK - timedelta(hours=2))
    market.done("orders.cancel", order_id=1003, member_id="seller")
    instants = [row.at for row in market.rows("SELECT at FROM unwind.events WHERE order_id = 1003 ORDER BY seq")]
    assert instants == sorted(instants)
    assert instants[-1] >= FILED + WEEK


def test_a_clock_that_steps_back_before_the_instant_makes_it_wait_again(market: Market) -> None:
    """P3: never early by the clock that decides; nothing was marked yet, so nothing has to be taken back."""
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK - timedelta(hours=1))
    assert market.done("npb.scan_open_alerts")["unlocked"] == 0
    assert market.code("orders.cancel", order_id=1003, member_id="seller") == "TOO_EARLY"


def test_what_waits_to_be_tried_keeps_its_wait_when_the_clock_steps_back(
    market: Market, owner: psycopg.Connection
) -> None:
    """Submissions and emails that fail are tried again after the wait that was meant, not after the step as well."""
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
    [due] = market.rows("SELECT due_at AS at FROM unwind.submissions")
    assert due.at == now - DAY + timedelta(seconds=30)
    tries = {row.at for row in market.rows("SELECT next_try_at AS at FROM unwind.notices")}
    assert tries == {now - DAY + timedelta(minutes=5)}


def test_everything_is_compared_each_night_after_the_clock_was_years_ahead(market: Market) -> None:
    """What was noted by a clock that is set right again keeps no sweep from its work."""
    now = market.simulation.clock.instant
    nights = "SELECT number FROM unwind.audit_marks WHERE name = 'night'"
    for at in (now + 4000 * DAY, now):
        market.at(at)
        for _ in range(40):
            market.do("audit.check_everything")
    [night] = market.rows(nights)
    assert night.number == (now - timedelta(hours=3)).toordinal()
