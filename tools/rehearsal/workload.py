"""The load of a rehearsal: 2,000 cancellations by message from a producer, and counts of what became of them."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import redis

from benchmarks.market import Market, build
from tools.rehearsal.podman import CannotRehearse, WrongResult
from workers.settings import CHECKOUT

EXAMPLE = CHECKOUT / "contract" / "examples" / "orders.cancel.json"
LINES = 2
COMMANDS_PER_SECOND = 25.0
SEND_TIMEOUT = 120.0
DRAIN_TIMEOUT = 600.0
LEASE_TIMEOUT_SECONDS = 20.0
END_LEASES = "UPDATE unwind.notices SET next_try_at = clock_timestamp() WHERE state = 'pending'"
"""An email whose sender was killed is sent again after ten minutes: too long to wait for here."""
EMAILS = {"emails sent", "emails not sent"}
COUNTS = """
    SELECT
      (SELECT count(*) FROM unwind.orders WHERE status = 'CANCELLED') AS "orders cancelled",
      (SELECT count(*) FROM unwind.events WHERE type = 'orders.cancelled') AS "cancellations recorded",
      (SELECT count(*) FROM unwind.requests WHERE answer->>'outcome' = 'done' AND request_id LIKE 'rehearsal-%')
        AS "commands answered done",
      (SELECT count(*) FROM unwind.ledger_lines WHERE kind IN ('credit', 'reset')) AS "fees returned",
      (SELECT count(*) FROM unwind.stock_moves WHERE delta > 0 AND kind <> 'recorded') AS "lines returned to stock",
      (SELECT count(*) FROM unwind.notices WHERE event = 'order_cancelled' AND state = 'sent') AS "emails sent",
      (SELECT count(*) FROM unwind.notices WHERE state <> 'sent') AS "emails not sent",
      (SELECT count(*) FROM unwind.outbox WHERE state <> 'done') AS "follow-ups open",
      (SELECT count(*) FROM unwind.dead_jobs) AS "dead jobs",
      (SELECT count(*) FROM unwind.dead_letters) AS "dead letters"
"""


@dataclass
class Workload:
    """Orders 1..`orders`, each cancelled by its seller. `database_url` is the owner's, `broker_url` a producer's."""

    orders: int
    database_url: str
    broker_url: str
    stall_timeout: float = DRAIN_TIMEOUT

    def prepare(self, administrator_url: str | None = None) -> None:
        """Fill the database, which only a superuser may do without checking each row."""
        with psycopg.connect(administrator_url or self.database_url, autocommit=True, connect_timeout=10) as conn:
            build(conn, Market(orders=self.orders, lines=LINES))

    def send(self) -> int:
        """Send the cancellations, each again with its request id until the broker takes it; return how many failed."""
        client = redis.Redis.from_url(self.broker_url, socket_timeout=5, socket_connect_timeout=3)
        failures, started_at = 0, time.monotonic()
        for number, order_id in enumerate(range(1, self.orders + 1)):
            text, until = self._message(order_id), time.monotonic() + SEND_TIMEOUT
            while True:
                try:
                    client.lpush("commands", text)
                    break
                except redis.RedisError as error:
                    failures += 1
                    if time.monotonic() > until:
                        raise CannotRehearse(f"The broker took no command for {SEND_TIMEOUT:.0f} s: {error}") from None
                    time.sleep(0.5)
            time.sleep(max(0.0, started_at + number / COMMANDS_PER_SECOND - time.monotonic()))
        client.close()
        return failures

    def expected(self) -> dict[str, int]:
        return {
            "orders cancelled": self.orders,
            "cancellations recorded": self.orders,
            "commands answered done": self.orders,
            "fees returned": self.orders,
            "lines returned to stock": LINES * self.orders,
            "emails sent": 2 * self.orders,
            "emails not sent": 0,
            "follow-ups open": 0,
            "dead jobs": 0,
            "dead letters": 0,
        }

    def counts(self) -> dict[str, int]:
        with psycopg.connect(self.database_url, connect_timeout=5, row_factory=psycopg.rows.dict_row) as conn:
            return dict(conn.execute(COUNTS).fetchone() or {})

    def check(self) -> None:
        """Wait until the counts are as expected; raise `WrongResult` with those that never are."""
        until, moved_at, before = time.monotonic() + DRAIN_TIMEOUT, time.monotonic(), self._differences()
        while differences := self._differences():
            if differences != before:
                moved_at, before = time.monotonic(), differences
            if differences.keys() <= EMAILS and time.monotonic() - moved_at > LEASE_TIMEOUT_SECONDS:
                with psycopg.connect(self.database_url, connect_timeout=5) as conn:
                    conn.execute(END_LEASES)
            if time.monotonic() > until or time.monotonic() - moved_at > self.stall_timeout:
                raise WrongResult(f"Lost or doubled, as (count, expected): {differences}")
            time.sleep(0.5)

    def _differences(self) -> dict[str, tuple[int, int]]:
        try:
            counts = self.counts()
        except psycopg.OperationalError:
            counts = {}
        return {
            name: (counts.get(name, -1), value) for name, value in self.expected().items() if counts.get(name) != value
        }

    def _message(self, order_id: int) -> str:
        seller = f"s-{(order_id - 1) // 100 % Market(self.orders).sellers}"
        arguments = {"order_id": order_id, "member_id": seller, "request_id": f"rehearsal-{order_id}"}
        message: dict[str, Any] = json.loads(EXAMPLE.read_text())["message"]
        message["body"] = base64.b64encode(json.dumps([[], arguments, {}]).encode()).decode()
        message["headers"]["id"] = message["headers"]["root_id"] = str(uuid.uuid4())
        message["properties"] |= {"correlation_id": message["headers"]["id"], "delivery_tag": str(uuid.uuid4())}
        return json.dumps(message)
