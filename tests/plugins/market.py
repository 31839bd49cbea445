"""A marketplace for tests: a seller, a buyer, a stranger and some lots, recorded through the public tasks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from models import feed
from models.bills import BillRow
from models.events import EventRow
from models.ledger import LedgerLineRow
from models.stock_moves import StockMoveRow
from tasks.command_parsing import parse_command
from tests.plugins.stored_rows import StoredRows
from tests.waiting import wait_until
from workers.app import app
from workers.simulation.engine import Simulation

ORDERED = datetime(2026, 3, 28, 10, tzinfo=UTC)
FILED = ORDERED + timedelta(days=7)
WEEK = timedelta(days=7)


class Market(StoredRows):
    """Runs commands on a simulation and queries the result."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        members = [
            {"member_id": member_id, "handle": member_id.title(), "email": f"{member_id}@example.org"}
            for member_id in ("seller", "buyer", "stranger", "other_seller")
        ]
        run_in_batch("members.record", members)
        simulation.process_outbox()

    def at(self, instant: datetime) -> Market:
        self.simulation.clock.instant = instant
        return self

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Run one command and its follow-ups."""
        answer = self.simulation.do(task, **arguments)
        self.simulation.process_outbox()
        return answer

    def done(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Run a command that must succeed and return its effects."""
        answer = self.do(task, **arguments)
        assert answer["outcome"] == "done", answer
        effects: dict[str, Any] = answer["effects"]
        return effects

    def code(self, task: str, **arguments: Any) -> str | None:
        answer = self.do(task, **arguments)
        assert answer["outcome"] in ("done", "refused"), answer
        code: str | None = answer["code"]
        return code

    def lot(self, lot_id: int = 501, **fields: Any) -> int:
        """Record a lot of 100 red bricks at 1.00 by default; returns its id."""
        self.done("inventory.record_lot", lot=lot_facts(lot_id, **fields))
        return lot_id

    def order(self, order_id: int = 1003, lines: list[tuple[int, int]] | None = None, **fields: Any) -> int:
        """Submit an order of ten bricks by default; returns its id."""
        if lines is None:
            lines = [(self.lot(500_000 + order_id), 10)]
        arguments = {
            "order_id": order_id,
            "buyer_id": "buyer",
            "seller_id": "seller",
            "lines": [{"lot_id": lot_id, "quantity": quantity} for lot_id, quantity in lines],
        } | fields
        self.done("orders.submit", **arguments)
        return order_id

    def read(self) -> AbstractContextManager[Connection]:
        return self.simulation.database.transaction()

    def feed(self) -> list[dict[str, Any]]:
        """All events of the feed, which has them a moment later while transactions of other databases end."""
        tables = (EventRow, StockMoveRow, LedgerLineRow, BillRow)

        def settled_events() -> list[dict[str, Any]] | None:
            with self.read() as conn:
                events = [event for _, event in feed.events_after(conn, None, 10_000)]
            return events if len(events) == sum(map(self.count, tables)) else None

        events: list[dict[str, Any]] = wait_until(settled_events, what="the feed of all events")
        return events


def run_in_batch(name: str, batch: Iterable[dict[str, Any]]) -> None:
    """Run commands of one task, which must succeed, in one transaction."""
    task = app.tasks[name]
    answers = task.run([parse_command(task.command_model, arguments, str(uuid4())) for arguments in batch])
    assert {answer.outcome for answer in answers} == {"done"}, (name, answers)


def lot_facts(lot_id: int, **fields: Any) -> dict[str, Any]:
    """The facts of a lot of 100 red bricks at 1.00, where the fields say nothing else."""
    return {
        "lot_id": lot_id,
        "seller_id": "seller",
        "item": {"no": "3001", "type": "PART"},
        "color_id": 5,
        "quantity": 100,
        "new_or_used": "N",
        "unit_price": "1.0000",
    } | fields


@pytest.fixture
def market(simulation: Simulation) -> Market:
    simulation.clock.instant = ORDERED
    return Market(simulation)
