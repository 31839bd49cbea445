"""Tests of webhooks: signatures, order, retries, and endpoints that fail, hang, redirect or are not public."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

import pytest
from click.testing import CliRunner
from standardwebhooks import Webhook

from models import webhooks as model
from models.webhooks import GIVE_UP_WEBHOOK_AFTER
from tasks.process_services import services
from tasks.webhooks import WebhookRejected, deliver_events
from tests.plugins.market import Market
from tests.plugins.postgres import CERTIFICATES
from workers.cli import group
from workers.simulation.engine import Simulation
from workers.webhooks.sender import WebhookSender

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOOPBACK = [ip_network("127.0.0.0/8")]


class Receiver:
    """An endpoint of an upstream system with faults that a test can switch on."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[dict[str, str], str]] = []
        self.status: int | Callable[[int], int] = 200
        self.hang = threading.Event()
        self.hang.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                receiver.hang.wait(60)
                status = (
                    receiver.status if isinstance(receiver.status, int) else receiver.status(len(receiver.requests))
                )
                self.send_response(status)
                self.send_header("Location", receiver.url + "elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(tls: ssl.SSLContext | None = None) -> Receiver:
        made.append(Receiver(tls))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture(autouse=True)
def sender() -> Iterator[None]:
    services.webhook_sender = WebhookSender(LOOPBACK)
    yield
    services.webhook_sender = None


def add(simulation: Simulation, url: str, types: str = "*") -> int:
    with simulation.database.transaction() as conn:
        return model.add_webhook(conn, url, SECRET, types.split(","), simulation.clock.instant)


def state(simulation: Simulation, webhook_id: int) -> Any:
    with simulation.database.transaction() as conn:
        return next(row for row in model.list_webhooks(conn) if row.webhook_id == webhook_id)


def replay(simulation: Simulation, webhook_id: int, cursor: str | None) -> None:
    with simulation.database.transaction() as conn:
        assert model.replay_webhook(conn, webhook_id, cursor, simulation.clock.instant)


def deliver(market: Market) -> Any:
    market.feed()  # has all events
    return deliver_events.run()


def test_events_arrive_once_signed_and_in_order(market: Market, receivers: Callable[[], Receiver]) -> None:
    market.order(1)
    before = market.feed()
    receiver = receivers()
    webhook = add(market.simulation, receiver.url)
    for order_id in range(2, 40):
        market.order(order_id)
    events = market.feed()
    assert deliver(market)["failed"] == 0
    received = [event["id"] for event in receiver.events]
    # The feed's end, where the endpoint began, may be a moment back while a transaction of another database ends.
    assert len(received) >= len(events) - len(before)
    assert received == [event["id"] for event in events[-len(received) :]]
    for headers, body in receiver.requests:
        event = Webhook(SECRET).verify(body, headers)
        assert (headers["webhook-id"], headers["content-type"]) == (event["id"], "application/cloudevents+json")
        assert event["specversion"] == "1.0"
    assert deliver(market) == {"delivered": 0, "failed": 0}
    assert state(market.simulation, webhook).delivered == len(receiver.requests) > 100


def test_endpoint_gets_the_types_that_it_wants(market: Market, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    add(market.simulation, receiver.url, "npb.*,orders.cancelled")
    market.order(1)
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="very private words")
    market.done("orders.cancel", order_id=1, member_id="seller")
    deliver(market)
    assert [event["type"] for event in receiver.events] == ["orders.cancelled"]
    assert "very private words" not in str(receiver.requests)


def test_failing_endpoint_is_retried_with_backoff_and_misses_nothing(
    market: Market, receivers: Callable[[], Receiver]
) -> None:
    receiver = receivers()
    webhook = add(market.simulation, receiver.url, "orders.submitted")
    for order_id in (1, 2, 3):
        market.order(order_id)
    receiver.status = lambda number: 200 if number == 1 else 503
    now = market.simulation.clock.instant
    assert deliver(market) == {"delivered": 1, "failed": 1}
    assert deliver(market) == {"delivered": 0, "failed": 0}, "not due yet"
    waits = []
    for _ in range(4):
        row = state(market.simulation, webhook)
        assert row.last_error == "it answered with status 503"
        waits.append(row.next_try_at - market.simulation.clock.instant)
        market.at(row.next_try_at)
        deliver(market)
    assert waits == [timedelta(seconds=5 * 2**n) for n in range(4)]
    receiver.status = 200
    market.at(now + timedelta(hours=1))
    assert deliver(market) == {"delivered": 2, "failed": 0}
    subjects = [event["subject"] for event in receiver.events]
    assert (subjects[0], subjects[-2:], set(subjects[1:-1])) == ("order/1", ["order/2", "order/3"], {"order/2"})
    assert state(market.simulation, webhook).failing_since is None


def test_endpoint_is_disabled_after_three_days_and_continues_where_it_stopped(
    market: Market, receivers: Callable[[], Receiver]
) -> None:
    receiver = receivers()
    webhook = add(market.simulation, receiver.url, "orders.submitted")
    market.order(1)
    receiver.status = 500
    began = market.simulation.clock.instant
    deliver(market)
    while (row := state(market.simulation, webhook)).disabled_at is None:
        market.at(row.next_try_at)
        deliver(market)
    assert (
        GIVE_UP_WEBHOOK_AFTER
        <= market.simulation.clock.instant - began
        <= GIVE_UP_WEBHOOK_AFTER + model.MAX_WEBHOOK_RETRY
    )
    market.at(market.simulation.clock.instant + timedelta(days=1))
    assert deliver(market) == {"delivered": 0, "failed": 0}
    with market.simulation.database.transaction() as conn:
        assert [row.webhook_id for row in model.list_webhooks(conn) if row.disabled_at is not None] == [webhook]
    receiver.status = 200
    receiver.requests.clear()
    replay(market.simulation, webhook, None)
    deliver(market)
    assert [event["subject"] for event in receiver.events] == ["order/1"]


def test_endpoint_that_is_gone_is_disabled_at_once(market: Market, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    webhook = add(market.simulation, receiver.url, "orders.submitted")
    market.order(1)
    receiver.status = 410
    deliver(market)
    assert state(market.simulation, webhook).disabled_at is not None


def test_events_are_sent_again_from_a_cursor(market: Market, receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    webhook = add(market.simulation, receiver.url, "orders.submitted")
    start = state(market.simulation, webhook).cursor
    market.order(1)
    deliver(market)
    replay(market.simulation, webhook, start)
    deliver(market)
    assert [event["subject"] for event in receiver.events] == ["order/1", "order/1"]
    assert receiver.events[0]["id"] == receiver.events[1]["id"]


def test_command_adds_lists_and_removes(market: Market, environment: Simulation) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(group, ["webhooks", *words])

    added = run("add", "https://shop.example/unwind", "--events", "npb.*,orders.cancelled")
    secret = added.stdout.strip()
    assert secret.startswith("whsec_")
    listed = run("list", "--json").stdout
    assert json.loads(listed)["events"] == ["npb.*", "orders.cancelled"]
    assert secret not in listed + run("list").stdout
    assert run("replay", "1", "--after", json.loads(listed)["cursor"]).exit_code == 0
    assert run("replay", "1", "--after", "x").exit_code == 2
    assert run("remove", "1").exit_code == 0
    assert run("list").stdout == "There are no webhooks.\n"
    assert run("remove", "1").exit_code == run("replay", "1").exit_code == 1
    for words in (("ftp://x/",), ("https://u:p@x/",), ("https://x/", "--events", "a b"), ("https://x:y/",)):
        assert run("add", *words).exit_code == 2


# -- endpoints that misbehave ------------------------------------------------------------------------------------------


def test_hanging_endpoint_delays_no_other(
    market: Market, receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.webhooks.sender.SEND_TIMEOUT_SECONDS", 1.0)
    hanging, working = receivers(), receivers()
    hanging.hang.clear()
    slow, quick = (add(market.simulation, r.url, "orders.submitted") for r in (hanging, working))
    for order_id in (1, 2):
        market.order(order_id)
    assert deliver(market) == {"delivered": 2, "failed": 1}
    assert [event["subject"] for event in working.events] == ["order/1", "order/2"]
    assert state(market.simulation, slow).last_error == "it did not answer in time"
    assert state(market.simulation, quick).last_error is None


def test_endpoint_that_drips_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.webhooks.sender.SEND_TIMEOUT_SECONDS", 1.0)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            line, _ = listener.accept()
            with line:
                line.sendall(b"HTTP/1.1 200 OK\r\n")
                try:
                    while not ended.wait(0.05):
                        line.sendall(b"X-Slow: 1\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(WebhookRejected, match="in time"):
                WebhookSender(LOOPBACK)(f"http://127.0.0.1:{listener.getsockname()[1]}/", SECRET, {"id": "1"})
        finally:
            ended.set()
            thread.join()


def test_redirect_is_not_followed(receivers: Callable[[], Receiver]) -> None:
    receiver = receivers()
    for status in (301, 302, 303, 307, 308):
        receiver.status = status
        with pytest.raises(WebhookRejected, match="redirects are not followed"):
            WebhookSender(LOOPBACK)(receiver.url, SECRET, {"id": "1"})
    assert len(receiver.requests) == 5


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "ff02::1", "64:ff9b:1::1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_name_that_resolves_to_an_address_that_is_not_public_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Also when only one of its addresses is; nothing is connected to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for addresses in ([address], ["93.184.216.34", address]):
        found = [(family, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it connected"))
        with pytest.raises(WebhookRejected, match="not public"):
            WebhookSender()("https://innocent.example/", SECRET, {"id": "1"})


def test_plain_http_is_for_allowed_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(WebhookRejected, match="https"):
        WebhookSender()("http://innocent.example/", SECRET, {"id": "1"})


def test_connection_that_is_refused_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(WebhookRejected, match="cannot be reached"):
        WebhookSender(LOOPBACK)(f"http://127.0.0.1:{port}/", SECRET, {"id": "1"})
    assert time.monotonic() - began < 60


def test_receiver_with_a_certificate_of_an_unknown_authority_gets_nothing(
    receivers: Callable[..., Receiver],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    receiver = receivers(context)
    with pytest.raises(WebhookRejected, match=r"cannot be reached: .*certificate verify failed"):
        WebhookSender(LOOPBACK)(receiver.url, SECRET, {"id": "1"})
    assert receiver.requests == []
    trust = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    WebhookSender(LOOPBACK, trust=trust)(receiver.url, SECRET, {"id": "1"})
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("url", ["http://x/\r\nHost: y", "https://x/ y", "https://é/", "https://", "x", "https://x/#a"])
def test_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        model.check_webhook_url(url)
