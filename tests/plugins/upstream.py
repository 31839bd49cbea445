"""An installation with seed data and a real worker, as an upstream system sees it.

It is not in the global plugins: modules that need it define a fixture with `temporary_installation`, because a worker
takes seconds to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import redis
from celery import Celery

from tests.plugins.market import Market, run_in_batch
from tests.plugins.servers import fresh_database, in_valkey_database, libpq_url
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until
from workers.embedded.client import ServerUrls
from workers.local.process_specs import worker_program
from workers.local.supervisor import Supervisor
from workers.settings import CHECKOUT, Settings, load_settings
from workers.simulation.engine import Simulation

START_TIMEOUT_SECONDS = 60.0
ANSWER_TIMEOUT_SECONDS = 45.0
FIRST_NUMBER = 40
"""Valkey databases from here on are ours: those of single tests are below."""


@dataclass
class Installation(DatabaseRows):
    """Servers, a worker, and what an upstream system knows of them."""

    settings: Settings
    supervisor: Supervisor
    database_url: str
    broker_url: str
    result_backend: str
    _redis: dict[str, Any] = field(default_factory=dict)

    def client(self, **configured: Any) -> Celery:
        app = _Closing("storefront", broker=self.broker_url, backend=self.result_backend, set_as_current=False)
        app.conf.update(configured)
        return app

    def redis(self, *, results: bool = False) -> Any:
        url = self.result_backend if results else self.broker_url
        if url not in self._redis:
            self._redis[url] = redis.Redis.from_url(url)
        return self._redis[url]

    def close(self) -> None:
        for connection in self._redis.values():
            connection.close()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(libpq_url(self.database_url), autocommit=True)

    def answer_of(self, request_id: str) -> dict[str, Any]:
        """Wait for the answer by SQL and return it."""
        answer: dict[str, Any] = wait_until(lambda: self._stored_answer(request_id))
        return answer

    def _stored_answer(self, request_id: str) -> dict[str, Any] | None:
        row = self.command_answer(request_id)
        return row.answer if row is not None and row.state == "answered" else None

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters as the command line lists them."""
        words = [sys.executable, "-m", "workers", "jobs", "dead-letters", "--json"]
        done = subprocess.run(words, env=self.environment(), cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def environment(self) -> dict[str, str]:
        return os.environ | self.settings.environment()

    def start_worker(self, **settings: Any) -> None:
        self.supervisor.start(worker_program(self.settings.model_copy(update=settings), "commands"))
        self.supervisor.wait_ready(START_TIMEOUT_SECONDS)

    def log(self) -> str:
        return self.supervisor.log("commands").read_text(errors="replace")


class _Closing(Celery):
    """Plain Celery that also closes its result connection; the garbage collector would warn."""

    def close(self) -> None:
        self.backend.result_consumer.stop()
        self.backend.client.connection_pool.disconnect()
        super().close()


@contextlib.contextmanager
def temporary_installation(
    servers: ServerUrls, admin: psycopg.Connection, template: str, folder: Path, past: Callable[[Market], None]
) -> Iterator[Installation]:
    """An installation without a worker; `past` writes its history, from three weeks ago to before now."""
    number = FIRST_NUMBER + 2 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    broker, results = (in_valkey_database(servers.broker_url, n) for n in (number, number + 1))
    for url in (broker, results):
        with contextlib.closing(redis.Redis.from_url(url)) as connection:
            connection.flushdb()
    with fresh_database(servers, admin, template) as database_url:
        with Simulation(database_url, at=DatabaseRows(database_url).server_time() - timedelta(days=21)) as simulation:
            past(Market(simulation))
        settings = load_settings(
            database_url=database_url, broker_url=broker, result_backend=results, data_dir=folder, log_level="INFO"
        )
        with (
            Supervisor(folder) as supervisor,
            contextlib.closing(Installation(settings, supervisor, database_url, broker, results)) as running,
        ):
            yield running


def submit_orders(market: Market, order_ids: range, **fields: Any) -> None:
    lot = market.lot(700_000 + order_ids.start, quantity=len(order_ids) + 1)
    arguments = {"buyer_id": "buyer", "seller_id": "seller", "lines": [{"lot_id": lot, "quantity": 1}]} | fields
    for start in range(0, len(order_ids), 100):
        run_in_batch("orders.submit", (arguments | {"order_id": number} for number in order_ids[start : start + 100]))
    market.simulation.process_outbox()
