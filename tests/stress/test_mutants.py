"""Tests that each of twenty mutants is caught by the name of what it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from stress import plan
from stress.live_scenarios import LIVE_SCENARIOS, ORDERS, Worker, seed_orders
from stress.mutants import MUTANTS
from stress.reference_model.market import Automation
from stress.simulated_market import SimulatedMarket, seed_history
from stress.simulated_scenarios import SIMULATED_SCENARIOS
from tests.plugins.proxy import Proxy
from tests.plugins.servers import fresh_database
from tests.plugins.upstream import Installation, temporary_installation
from workers.embedded.client import ServerUrls

pytestmark = [pytest.mark.long]
LIVE = [mutant for mutant in MUTANTS.values() if mutant.scenario in LIVE_SCENARIOS]
ALONE = [mutant for mutant in MUTANTS.values() if mutant.scenario in SIMULATED_SCENARIOS]


@pytest.fixture(scope="module")
def seeded_template(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[str]:
    with fresh_database(servers, admin, template_database) as url:
        seed_history(url)
        yield url.rpartition("/")[2]


@pytest.fixture
def market(servers: ServerUrls, admin: psycopg.Connection, seeded_template: str) -> Iterator[SimulatedMarket]:
    with fresh_database(servers, admin, seeded_template) as url, SimulatedMarket(url).standing() as standing:
        yield standing


def test_automatic_cancellations_are_judged(market: SimulatedMarket) -> None:
    """R116, R117, R118, R121: those that are due are replayed, any other is a violation."""
    agreed = market.buy(seller=plan.AUTOMATED, requested=True)
    for holds in (False, True):
        order_id = market.buy(seller=plan.AUTOMATED)
        if holds:
            market.do("orders.hold_automation", order_id=order_id, staff="kim", comment="wait")
        market.do("npb.file", order_id=order_id, member_id=plan.AUTOMATED)
    market.advance(plan.UNLOCK)
    assert market.violations() == []
    assert market.oracle.automatic == {"cancel": 2}
    assert market.oracle.reference.orders[agreed].basis == "OCR_BUYER"
    market.oracle.reference.people[plan.AUTOMATED].automation = Automation()
    cancelled_early = market.buy(seller=plan.AUTOMATED, requested=True)
    assert f"order {cancelled_early}: automation did cancel" in market.violations()[0]


@pytest.mark.parametrize("name", SIMULATED_SCENARIOS)
def test_scenario_without_a_mutant_has_no_violation(market: SimulatedMarket, name: str) -> None:
    SIMULATED_SCENARIOS[name](market)
    assert market.violations() == []


@pytest.mark.parametrize("name", [mutant.name for mutant in ALONE])
def test_mutant_is_caught(market: SimulatedMarket, name: str) -> None:
    mutant = MUTANTS[name]
    with mutant.activate(market.database_url):
        SIMULATED_SCENARIOS[mutant.scenario](market)
        violations = market.violations()
    assert any(mutant.caught in sentence for sentence in violations), violations


@pytest.fixture(scope="module")
def live(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(
        servers, admin, template_database, tmp_path_factory.mktemp("live"), seed_orders
    ) as standing:
        yield standing


@pytest.fixture(scope="module")
def orders() -> Iterator[int]:
    return iter(ORDERS)


@pytest.fixture
def path(live: Installation) -> Iterator[Proxy]:
    live.redis().flushdb()
    with Proxy(urlsplit(live.broker_url).port or 0) as standing:
        yield standing


@pytest.fixture
def results(live: Installation) -> Iterator[Proxy]:
    with Proxy(urlsplit(live.result_backend).port or 0) as standing:
        yield standing


@pytest.mark.parametrize("name", LIVE_SCENARIOS)
def test_live_scenario_without_a_mutant_has_no_violation(
    live: Installation, path: Proxy, results: Proxy, orders: Iterator[int], name: str
) -> None:
    group = Worker(live, path, results, None)
    try:
        assert LIVE_SCENARIOS[name](group, orders) == []
    finally:
        group.end()


@pytest.mark.parametrize("name", [mutant.name for mutant in LIVE])
def test_live_mutant_is_caught(
    live: Installation, path: Proxy, results: Proxy, orders: Iterator[int], name: str
) -> None:
    mutant = MUTANTS[name]
    group = Worker(live, path, results, mutant.name)
    try:
        violations = LIVE_SCENARIOS[mutant.scenario](group, orders)
    finally:
        group.end()
    assert any(mutant.caught in sentence for sentence in violations), violations


def test_every_mutant_has_a_test() -> None:
    assert len(MUTANTS) == len(ALONE) + len(LIVE) == 20
