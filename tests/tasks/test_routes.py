"""The routes of `orders.options`, walked on a real database: each step is done at its instant and refused before."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from random import Random
from typing import Any

import jsonschema
import pytest

from policies.timestamps import format_timestamp, parse_timestamp
from tests.plugins.market import Market
from tools.contract_files import options_schema

SCHEMA = jsonschema.Draft202012Validator(options_schema())
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
ARGUMENTS: dict[str, dict[str, Any]] = {
    "nrs.file": {"comment": "silent"},
    "nss.file": {"grounds": "INCOMPLETE", "comment": "parts missing"},
    "npb.respond": {"comment": "I will pay"},
}
LIFE = ("npb.file", "npb.respond", "npb.accept_penalty", "npb.take_back", "npb.remove", "nrs.file", "nss.file")
REASONS = {"seller": "S_MUTUAL", "buyer": "B_MUTUAL"}


def send(market: Market, action: str, order_id: int, role: str) -> dict[str, Any]:
    arguments = ARGUMENTS.get(action, {})
    if action == "ocr.file":
        arguments = {"reason": REASONS[role], "comment": "agreed by mail"}
    return market.do(action, order_id=order_id, member_id=f"{role}-{order_id}", **arguments)


def live(market: Market, random: Random, order_id: int) -> None:
    seller, buyer = (f"{role}-{order_id}" for role in ("seller", "buyer"))
    for member in (seller, buyer):
        market.done("members.record", member_id=member, handle=member, email=f"{member}@example.org")
    market.order(order_id, [(market.lot(order_id, seller_id=seller), 10)], seller_id=seller, buyer_id=buyer)
    if random.random() < 0.4:
        market.done("orders.record_payment", order_id=order_id, payment_status="Received")
    for _ in range(random.randint(0, 4)):
        send(market, random.choice(LIFE), order_id, random.choice(("seller", "buyer")))
        market.simulation.advance(market.simulation.clock.instant + random.randint(0, 6) * DAY)


def step(market: Market, action: str, order_id: int, role: str, at: datetime) -> None:
    if at > market.simulation.clock.instant:
        market.simulation.advance(at - SECOND)
        assert send(market, action, order_id, role)["outcome"] == "refused"
        market.simulation.advance(at)
    answer = send(market, action, order_id, role)
    assert answer["outcome"] == "done", answer


def walk(market: Market, order_id: int, route: dict[str, Any], *, answered: bool) -> None:
    *filing, cancel = route["steps"]
    for filed in filing:
        step(market, filed["action"], order_id, route["role"], parse_timestamp(filed["possible_from"]))
    at = parse_timestamp(cancel["possible_from"])
    if answered:
        at = parse_timestamp(route["if_answered"])
        assert send(market, "npb.respond", order_id, "buyer")["outcome"] == "done"
    step(market, "orders.cancel", order_id, route["role"], at)
    row = market.stored_order(order_id)
    assert (row.status, row.basis, row.cancelled_at) == ("CANCELLED", route["basis"], at)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_a_route_ends_in_the_cancellation_at_its_instant(market: Market, seed: int) -> None:
    random = Random(seed)
    walked = set()
    for order_id in range(2001, 2015):
        live(market, random, order_id)
        if random.random() < 0.5:
            begins = market.simulation.clock.instant + random.randint(1, 9) * DAY
            terms = {"NPB_FILE_AFTER": f"{random.randint(0, 9)}d", "NPB_UNLOCK_NO_RESPONSE": f"{random.randint(1, 9)}d"}
            market.done("terms.apply", **{"terms": terms, "from": format_timestamp(begins), "staff": "kim"})
        effects = market.done("orders.options", order_id=order_id, staff="kim")
        SCHEMA.validate(json.loads(json.dumps(effects)))
        routes = effects["routes"]
        of_seller = market.done("orders.options", order_id=order_id, member_id=f"seller-{order_id}")["routes"]
        assert of_seller == [route for route in routes if route["role"] == "seller"]
        if routes:
            route = random.choice(routes)
            answered = route["if_answered"] is not None and random.random() < 0.5
            walk(market, order_id, route, answered=answered)
            walked.add((route["basis"], len(route["steps"]), answered))
    assert len(walked) > 3, walked
