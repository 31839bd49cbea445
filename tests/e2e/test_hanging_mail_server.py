"""A test that sweeps go on while a mail server holds every process that sends emails."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from models.notices import NoticeRow
from schedules.routes import queue_of
from tests.plugins.market import WEEK, Market
from tests.plugins.upstream import START_TIMEOUT_SECONDS, submit_orders, temporary_installation
from tests.waiting import wait_until
from workers.embedded.client import ServerUrls
from workers.local.process_specs import WORKER_GROUPS, worker_program

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(240)]

OUTBOX_ROW = (
    "INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at) "
    "VALUES (%s, 'notices.tell_seller', 2001, %s, now(), now() + interval '1 hour')"
)
NOTICE = {"role": "seller", "event": "npb_responded", "recipient": "seller", "facts": {}}


class HangingMailServer(socketserver.ThreadingTCPServer):
    """Greets each client in a multi-line reply that does not end before `close`, so that no timeout ends the wait."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _EndlessGreeting)
        self.clients = 0
        self.left = 0
        self.closed = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()


class _EndlessGreeting(socketserver.BaseRequestHandler):
    server: HangingMailServer

    def handle(self) -> None:
        self.server.clients += 1
        try:
            while not self.server.closed.wait(1):
                self.request.sendall(b"220-one moment\r\n")
        except OSError:
            self.server.left += 1


@pytest.fixture
def mail_server() -> Iterator[HangingMailServer]:
    server = HangingMailServer()
    yield server
    server.close()


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2002))
    market.at(market.simulation.clock.instant + WEEK)
    market.done("npb.file", order_id=2001, member_id="seller")


def test_an_alert_unlocks_while_a_mail_server_holds_every_process_that_sends_emails(
    servers: ServerUrls,
    admin: psycopg.Connection,
    template_database: str,
    tmp_path: Path,
    mail_server: HangingMailServer,
) -> None:
    """R41, R102."""
    with (
        temporary_installation(servers, admin, template_database, tmp_path, seed) as installation,
        installation.client() as client,
    ):
        url = SecretStr(f"smtp://127.0.0.1:{mail_server.server_address[1]}")
        settings = installation.settings.model_copy(update={"smtp_url": url})
        for group in WORKER_GROUPS:
            installation.supervisor.start(worker_program(settings, group))
        installation.supervisor.wait_ready(START_TIMEOUT_SECONDS)
        for number in range(1, settings.concurrency + 1):  # one email for each process
            with installation.connect() as conn:
                conn.execute(OUTBOX_ROW, [f"email:{number}", Jsonb(NOTICE)])
            client.send_task("notices.tell_seller", queue=queue_of("notices.tell_seller"), ignore_result=True)
            wait_until(lambda number=number: mail_server.clients == number)  # type: ignore[misc]
        client.send_task("npb.scan_open_alerts", queue=queue_of("npb.scan_open_alerts"), ignore_result=True)
        wait_until(lambda: installation.count(NoticeRow, event="npb_unlocked"))
        assert (mail_server.clients, mail_server.left) == (settings.concurrency, 0)
        mail_server.close()
