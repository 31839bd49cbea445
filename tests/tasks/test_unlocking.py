"""How does a scan go through many alerts that are due?  In batches that any number of scanners share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models import alerts
from models.unit_of_work import UnitOfWork
from policies.cases import AlertKind
from tasks.sweeps import sweep
from tests.plugins.crashes import CrashPoints, Died, raise_error
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

DUE = FILED + WEEK
ORDERS = range(1, 8)


class ThirdBatch(CrashPoints):
    """Dies when the statement of the third batch has been carried out and is not committed."""

    batches = 0

    def reach(self, name: str, connection: psycopg.Connection[Any] | None = None) -> None:
        """The scan has come here."""
        self.batches += name.startswith("after WITH due AS")
        if self.batches == 3:
            self.batches += 1
            raise_error(connection)


@pytest.fixture
def ripe(market: Market) -> Market:
    """Seven alerts that are due at one instant, and nobody looked yet."""
    for order_id in ORDERS:
        market.order(order_id)
    market.at(FILED)
    for order_id in ORDERS:
        market.done("npb.file", order_id=order_id, member_id="seller")
    return market.at(DUE)


def scan(limit: int) -> int:
    """One scan in batches of `limit`; gives how many alerts it unlocked."""
    found = sweep("npb.scan_open_alerts", alerts.UnlockSweep([AlertKind.NPB]), result_key="unlocked", limit=limit)
    return int(found["unlocked"])


def unlocked(market: Market) -> list[tuple[Any, ...]]:
    """Order, events of its timeline and promises to its seller, of every alert that is unlocked."""
    rows = market.rows(
        "SELECT o.order_id, o.version, "
        "(SELECT count(*) FROM unwind.events e WHERE e.order_id = o.order_id AND e.type = 'npb.unlocked') AS events, "
        "(SELECT count(*) FROM unwind.outbox p WHERE p.key LIKE 'npb_unlocked:' || o.order_id || ':%') AS promises "
        "FROM unwind.orders o JOIN unwind.alerts a USING (order_id) WHERE a.unlocked_at IS NOT NULL ORDER BY 1"
    )
    return [tuple(row) for row in rows]


EACH_ONCE = [(order_id, 3, 1, 1) for order_id in ORDERS]


@contextlib.contextmanager
def held(database_url: str, *order_ids: int) -> Iterator[None]:
    """Somebody else's transaction that holds these orders."""
    with psycopg.connect(libpq_url(database_url)) as other:
        other.execute("SELECT FROM unwind.orders WHERE order_id = ANY (%s) FOR UPDATE", [list(order_ids)])
        yield
        other.rollback()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_every_batch_size_unlocks_each_alert_once(ripe: Market, limit: int) -> None:
    """R41: alerts of one instant are told apart by their numbers, so that no batch repeats or forgets one."""
    assert scan(limit) == len(ORDERS)
    assert unlocked(ripe) == EACH_ONCE
    assert scan(limit) == 0


def test_two_scans_share_what_is_due(ripe: Market, database_url: str) -> None:
    """R41: what one scan holds the other passes by, and neither waits."""
    with held(database_url, 1, 2, 3):
        assert scan(2) == 4
    assert [row[0] for row in unlocked(ripe)] == [4, 5, 6, 7]
    assert scan(2) == 3
    assert unlocked(ripe) == EACH_ONCE


class Shared:
    """Batches whose rows another sweep did while this one waited for them, all of the first and half of the second."""

    def __init__(self) -> None:
        self.coming = [(4, 0), (4, 2), (3, 3), (4, 4)]

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """The next one: at how many it looked, and how many it did."""
        return self.coming.pop(0)

    def committed(self) -> None:
        """Nothing to remember."""

    def skip_next(self, work: UnitOfWork[Any]) -> None:
        """Nothing fails."""


@pytest.mark.usefixtures("market")
def test_a_sweep_goes_on_behind_rows_that_another_did_meanwhile() -> None:
    """R41: of two scans at once none stops because the other was faster with some rows (B7)."""
    shared = Shared()
    assert sweep("npb.scan_open_alerts", shared, result_key="unlocked", limit=4) == {"unlocked": 5}
    assert shared.coming == [(4, 4)]


def test_a_scan_that_is_killed_in_the_middle_is_finished_by_the_next(ripe: Market) -> None:
    """P2, P3: batches that were committed stay, the one that was not is done anew, nothing is doubled."""
    ThirdBatch().watch(ripe.simulation.database.engine)
    with pytest.raises(Died):
        scan(2)
    assert len(unlocked(ripe)) == 4
    assert scan(2) == 3
    assert unlocked(ripe) == EACH_ONCE


def test_an_order_that_went_on_after_the_scan_began_waits_for_the_next(ripe: Market) -> None:
    """R100: a timeline never runs backwards, so what happened after the scan's instant is not overtaken by it."""
    ripe.at(DUE + timedelta(seconds=1)).done("npb.respond", order_id=4, member_id="buyer", comment="Soon.")
    ripe.at(DUE)
    assert scan(100) == 6
    assert 4 not in {row[0] for row in unlocked(ripe)}
    instants = [
        row.at for row in ripe.at(DUE + WEEK).rows("SELECT at FROM unwind.events WHERE order_id = 4 ORDER BY seq")
    ]
    assert instants == sorted(instants)


def test_an_instant_is_promised_as_python_writes_it(market: Market) -> None:
    """contract 2.1: the statement's own way to write an instant is that of `format_timestamp`, fractions and all."""
    from policies.timestamps import format_timestamp, parse_timestamp

    for number in range(1, 6):
        market.order(number)
    for number, micro in enumerate((0, 1, 100_000, 120_300, 999_999), start=1):
        market.at(FILED + timedelta(minutes=number, microseconds=micro))
        market.done("npb.file", order_id=number, member_id="seller")
    market.at(DUE + timedelta(hours=1))
    assert scan(3) == 5
    told = market.rows(
        "SELECT payload -> 'facts' ->> 'unlocks_at' AS at FROM unwind.outbox WHERE key LIKE 'npb_unlocked%'"
    )
    changed = market.rows(
        "SELECT changes #>> '{alert,unlocked_at}' AS at FROM unwind.events WHERE type = 'npb.unlocked'"
    )
    assert {row.at for row in changed} == {format_timestamp(DUE + timedelta(hours=1))}
    assert len({row.at for row in told}) == 5
    for row in told:
        assert format_timestamp(parse_timestamp(row.at)) == row.at
