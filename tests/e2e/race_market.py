"""A market for races: commands of several processes that one barrier releases, and what must hold after the rounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.e2e.concurrency import ConcurrentProcesses
from tests.plugins.market import Market
from workers.simulation.engine import Simulation

DAY = timedelta(days=1)
Answer = dict[str, Any]
Ends = dict[tuple[str, ...], str]
"""In which status the order ends, by the two answers; any other pair of answers is wrong."""


@pytest.fixture(scope="module")
def race_processes() -> Iterator[ConcurrentProcesses]:
    with ConcurrentProcesses(3) as standing:
        yield standing


class RaceMarket:
    def __init__(self, simulation: Simulation, database_url: str, processes: ConcurrentProcesses) -> None:
        self.simulation, self.processes = simulation, processes.at(database_url)
        with simulation.database.transaction() as conn:
            self.present: datetime = conn.execute(text("SELECT date_trunc('second', clock_timestamp())")).scalar_one()
        self.days_ago(30)
        self.market = Market(simulation)
        self.lot = self.market.lot(quantity=1_000_000)

    def days_ago(self, days: int) -> RaceMarket:
        self.simulation.clock.instant = self.present - days * DAY
        return self

    def do(self, task: str, **arguments: Any) -> Answer:
        answer = self.simulation.do(task, **arguments)
        assert answer["outcome"] == "done", (task, answer)
        return answer

    def order(self, number: int, *, lot: int | None = None, quantity: int = 5, **who: str) -> int:
        buyer = who.get("buyer", f"buyer-{number}")
        self.days_ago(30)
        self.do("members.record", member_id=buyer, handle=buyer, email=f"{buyer}@example.org")
        lines = [{"lot_id": self.lot if lot is None else lot, "quantity": quantity}]
        seller = who.get("seller", "seller")
        self.do("orders.submit", order_id=number, buyer_id=buyer, seller_id=seller, lines=lines)
        return number

    def npb(self, number: int, *, days_ago: int, accepted: bool = False) -> None:
        self.days_ago(days_ago).do("npb.file", order_id=number, member_id="seller")
        if accepted:
            self.do("npb.accept_penalty", order_id=number, member_id=f"buyer-{number}")

    def ocr(self, number: int, by: str) -> None:
        reason = "S_MUTUAL" if by.startswith("seller") else "B_MUTUAL"
        self.days_ago(5).do("ocr.file", order_id=number, member_id=by, reason=reason, comment="we spoke")

    def finish(self) -> None:
        with self.simulation.database.transaction() as conn:
            self.simulation.clock.instant = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
        self.simulation.process_outbox()
        for sentence, question in EMPTY.items():
            rows = self.rows(question)
            assert not rows, (sentence, rows[:5])

    def rows(self, sql: str, **values: Any) -> list[Any]:
        return self.market.rows(sql, **values)

    def status(self, number: int) -> str:
        return self.market.status(number)


EMPTY = {
    "an order is cancelled once": """
        SELECT order_id FROM unwind.events WHERE type = 'orders.cancelled' GROUP BY 1 HAVING count(*) > 1""",
    "nothing stays open on a cancelled order": """
        SELECT o.order_id FROM unwind.orders o WHERE o.status = 'CANCELLED' AND (
            EXISTS (SELECT FROM unwind.alerts a WHERE a.order_id = o.order_id AND a.state = 'open')
            OR EXISTS (SELECT FROM unwind.ocrs r WHERE r.order_id = o.order_id AND r.state = 'open')
            OR EXISTS (SELECT FROM unwind.removals m WHERE m.order_id = o.order_id AND m.state = 'pending')
            OR NOT EXISTS (SELECT FROM unwind.events e WHERE e.order_id = o.order_id
                AND e.type = 'orders.cancelled'))""",
    "nothing happens to a cancelled order": """
        SELECT e.order_id FROM unwind.events e JOIN unwind.events c USING (order_id)
        WHERE c.type = 'orders.cancelled' AND e.seq > c.seq
            AND e.type NOT IN ('removals.cancelled', 'orders.paid_after_cancellation')""",
    "units are conserved": """
        SELECT seller_id, item_no FROM (
            SELECT seller_id, item_no, color_id, delta AS units FROM unwind.stock_moves
            UNION ALL SELECT seller_id, item_no, color_id, -quantity FROM unwind.lots) m
        GROUP BY seller_id, item_no, color_id HAVING sum(units) <> 0""",
    "each order's ledger comes to its fee, or to nothing": """
        SELECT order_id FROM unwind.orders JOIN unwind.ledger_lines USING (order_id)
        GROUP BY order_id, status, basis, fee HAVING sum(amount) <>
            CASE WHEN status = 'CANCELLED' AND basis NOT IN ('NRS', 'NSS') THEN 0 ELSE fee END""",
    "every version has its event": """
        SELECT order_id FROM unwind.orders o
        WHERE GREATEST(version, (SELECT max(unlock_seq) FROM unwind.alerts a WHERE a.order_id = o.order_id))
            <> (SELECT count(*) FROM unwind.events e WHERE e.order_id = o.order_id)""",
    "events of an order never run backwards": """
        SELECT order_id FROM (
            SELECT order_id, at, lag(at) OVER (PARTITION BY order_id ORDER BY seq) AS before FROM unwind.events
            WHERE order_id IS NOT NULL) e
        WHERE at < before""",
    "every outbox message is done": "SELECT task FROM unwind.outbox WHERE state <> 'done'",
}


@pytest.fixture
def race_market(simulation: Simulation, database_url: str, race_processes: ConcurrentProcesses) -> RaceMarket:
    return RaceMarket(simulation, database_url, race_processes)


def codes(answers: list[Answer]) -> tuple[str, ...]:
    return tuple("done" if a["outcome"] == "done" else str(a["code"] or a["outcome"]) for a in answers)
