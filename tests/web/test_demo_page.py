"""Tests of the page on which a visitor of the demo chooses the member to act as."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.plugins.market import Market
from tests.plugins.website import Website, website
from workers.embedded.client import ServerUrls


def seed(market: Market) -> None:
    market.done("members.record", member_id="buyer", handle="Bea", email="b@x.org", time_zone="Europe/Berlin")
    market.order(1001)


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(
        servers, admin, template_database, seed, link_secret="a secret of the demo, which is long enough", is_demo=True
    ) as running:
        yield running


def test_each_link_signs_in_once(site: Website) -> None:
    assert site.command("npb.file", {"order_id": 1001, "member_id": "seller"}).json["outcome"] == "done"
    offer = site.request("GET", "/problem-order/demo").text
    links = dict(re.findall(r'href="(/problem-order/sign-in[^"]*)"><bdi>(\w+)</bdi>', offer))
    assert {"Bea", "Staff"} <= set(links.values())
    for address in links:
        first, second = (site.request("GET", address) for _ in range(2))
        assert (first.status, second.status) == (303, 401)
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert site.request("GET", "/problem-order", headers={"Cookie": cookie}).status == 200


def test_page_is_for_this_machine_only(site: Website) -> None:
    assert site.request("GET", "/problem-order/demo", headers={"Host": "marketplace.example"}).status == 404
