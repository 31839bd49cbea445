"""Tests of the routes that read: the same JSON as the command line, with the rights of their role only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from models.db import database as db
from models.ddl.grants import WEB_ROLE
from policies.timestamps import parse_timestamp
from tests.plugins.market import Market
from tests.plugins.website import Website, website
from workers.embedded.client import ServerUrls
from workers.show_queries import parse_query


def seed(market: Market) -> None:
    market.order(1003)
    market.order(1004)
    market.at(market.simulation.clock.instant + timedelta(days=7, hours=1))
    market.done("npb.file", order_id=1003, member_id="seller")
    market.done("removals.request", order_id=1004, member_id="buyer", lines=[{"line_no": 1, "quantity": 1}])
    market.done("ocr.file", order_id=1004, member_id="seller", reason="S_MUTUAL", comment="agreed")
    market.done("orders.cancel", order_id=1004, member_id="seller")


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(servers, admin, template_database, seed) as running:
        yield running


def shown(site: Website, *words: Any) -> Any:
    with site.database.transaction() as conn:
        return parse_query(words).read(conn, site.database.clock.now(conn))


def test_routes_return_what_the_command_line_shows(site: Website) -> None:
    with site.read() as conn:
        month = f"{site.database.clock.now(conn) - timedelta(days=1):%Y-%m}"
    ordered_at = shown(site, "order", 1003)["order_date"]
    assert site.get("/v1/orders/1003").json == shown(site, "order", 1003)
    assert site.get("/v1/orders/1004").json == shown(site, "order", 1004)
    assert site.get(f"/v1/orders/1004?at={ordered_at}").json == shown(site, "order", 1004, "--at", ordered_at)
    assert site.get(f"/v1/sellers/seller/bills/{month}").json == shown(site, "bill", "seller", month)
    assert site.get("/v1/sellers/seller/credits").json == shown(site, "credits", "seller")
    forecast = site.get("/v1/forecast?days=14").json
    assert forecast["total"] == shown(site, "forecast", "--days", 14)["total"] == 1


def test_options_are_those_of_the_party(site: Website) -> None:
    options = site.get("/v1/orders/1003/options?member_id=seller").json
    explained = shown(site, "explain", "order", 1003)
    assert options["options"] == explained["seller"]
    assert site.get("/v1/orders/1003/options?member_id=buyer").json["options"] == explained["buyer"]
    assert parse_timestamp(options["at"]) <= parse_timestamp(explained["at"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/9",
        "/v1/orders/9/options?member_id=seller",
        "/v1/orders/1003/options?member_id=stranger",
        "/v1/orders/1003/options?member_id=nobody",
        "/v1/sellers/nobody/credits",
        "/v1/sellers/nobody/bills/2026-03",
        "/v1/sellers/seller/bills/9999-12",
    ],
)
def test_what_is_not_there_is_a_404(site: Website, path: str) -> None:
    reply = site.get(path)
    assert (reply.status, reply.json["status"]) == (404, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/0",
        "/v1/orders/99999999999999999999",
        "/v1/orders/one",
        "/v1/orders/1003?at=yesterday",
        "/v1/orders/1003/options",
        "/v1/orders/1003/options?member_id=a%00b",
        "/v1/sellers/a%00b/credits",
        "/v1/sellers/a%ed%a0%80b/credits",
        "/v1/sellers/seller/bills/2026-13",
        "/v1/sellers/seller/bills/0000-01",
        "/v1/forecast?days=0",
        "/v1/events?after=x",
        "/v1/events?limit=1001",
        "/v1/requests/a%20b",
    ],
)
def test_bad_parameters_are_refused(site: Website, path: str) -> None:
    reply = site.get(path, key="staff")
    assert reply.status in (404, 422)
    assert reply.headers["content-type"] == "application/problem+json"


def test_feed_is_read_by_cursor(site: Website) -> None:
    events: list[Any] = []
    after = ""
    while page := site.get(f"/v1/events?limit=7{after}").json["events"]:
        events += page
        after = f"&after={page[-1]['cursor']}"
    assert [entry["event"]["id"] for entry in events] == list(dict.fromkeys(entry["event"]["id"] for entry in events))
    assert {"npb.filed", "orders.cancelled"} < {entry["event"]["type"] for entry in events}


def test_role_of_the_web_process_reads_no_addresses_and_writes_nothing(site: Website) -> None:
    web = db.connect(site.database.address, role=WEB_ROLE)
    try:
        for statement in (
            "SELECT email FROM unwind.members",
            "SELECT payload FROM unwind.submissions",
            "SELECT arguments FROM unwind.dead_jobs",
            "UPDATE unwind.orders SET status = 'PAID'",
            "UPDATE unwind.api_keys SET scope = 'staff'",
            "INSERT INTO unwind.submissions DEFAULT VALUES",
        ):
            with pytest.raises(DBAPIError, match="permission denied"), web.transaction() as conn:
                conn.exec_driver_sql(statement)
    finally:
        web.dispose()


def test_health_metrics_and_headers(site: Website) -> None:
    health = site.get("/healthz", key=None)
    assert (health.status, health.json) == (200, {"status": "ok"})
    site.get("/v1/orders/1003")
    text = site.get("/metrics", key=None).text
    assert 'unwind_http_requests_total{method="GET",route="/v1/orders/{order_id}",status="200"}' in text
    assert "/orders/1003" not in text
    headers = site.get("/v1/orders/1003").headers
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "server" not in headers
