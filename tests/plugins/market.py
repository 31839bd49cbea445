"""A marketplace for tests: a seller, a buyer, a stranger and some lots, recorded through the public tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import ColumnElement, inspect, select, text
from sqlalchemy.orm import Session

from models import feed
from models.alerts import AlertRow
from models.db.schema import Base
from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.ledger import LedgerLineRow
from models.lots import LotRow
from models.members import StrikeRow
from models.notices import NoticeRow
from models.orders import OrderRow
from models.outbox import OutboxRow
from tests.waiting import wait_until
from workers.simulation.engine import Simulation

ORDERED = datetime(2026, 3, 28, 10, tzinfo=UTC)
FILED = ORDERED + timedelta(days=7)
WEEK = timedelta(days=7)

Row = TypeVar("Row", bound=Base)


class Market:
    """Runs commands on a simulation and queries the result."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        for member_id in ("seller", "buyer", "stranger", "other_seller"):
            self.done("members.record", member_id=member_id, handle=member_id.title(), email=f"{member_id}@example.org")

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
        lot = {
            "lot_id": lot_id,
            "seller_id": "seller",
            "item": {"no": "3001", "type": "PART"},
            "color_id": 5,
            "quantity": 100,
            "new_or_used": "N",
            "unit_price": "1.0000",
        } | fields
        self.done("inventory.record_lot", lot=lot)
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

    def count(self, table: str, **values: Any) -> int:
        """The number of rows with these values."""
        condition = " AND ".join(["true", *(f"{column} = :{column}" for column in values)])
        return int(self.row(f"SELECT count(*) AS number FROM unwind.{table} WHERE {condition}", **values).number)  # noqa: S608

    def units(self, lot_id: int | None = None) -> int:
        """The quantity of a lot, by default of the only one."""
        (row,) = self.rows(
            "SELECT quantity FROM unwind.lots WHERE lot_id = coalesce(CAST(:lot_id AS bigint), lot_id)", lot_id=lot_id
        )
        return int(row.quantity)

    def status(self, order_id: int) -> str:
        return self.stored_order(order_id).status

    def stored(self, table: type[Row], *conditions: ColumnElement[bool], **values: Any) -> list[Row]:
        """The rows that meet the conditions and have these values, in the order of the primary key."""
        query = select(table).where(*conditions).filter_by(**values).order_by(*inspect(table).primary_key)
        with self.simulation.database.transaction() as conn, Session(conn) as session:
            return list(session.scalars(query))

    def stored_order(self, order_id: int = 1003) -> OrderRow:
        (order,) = self.stored(OrderRow, order_id=order_id)
        return order

    def alerts(self, *conditions: ColumnElement[bool], **values: Any) -> list[AlertRow]:
        return self.stored(AlertRow, *conditions, **values)

    def dead_jobs(self, *conditions: ColumnElement[bool], **values: Any) -> list[DeadJobRow]:
        return self.stored(DeadJobRow, *conditions, **values)

    def events(self, *conditions: ColumnElement[bool], **values: Any) -> list[EventRow]:
        return self.stored(EventRow, *conditions, **values)

    def ledger_lines(self, *conditions: ColumnElement[bool], **values: Any) -> list[LedgerLineRow]:
        return self.stored(LedgerLineRow, *conditions, **values)

    def lots(self, *conditions: ColumnElement[bool], **values: Any) -> list[LotRow]:
        return self.stored(LotRow, *conditions, **values)

    def notices(self, *conditions: ColumnElement[bool], **values: Any) -> list[NoticeRow]:
        return self.stored(NoticeRow, *conditions, **values)

    def outbox(self, *conditions: ColumnElement[bool], **values: Any) -> list[OutboxRow]:
        return self.stored(OutboxRow, *conditions, **values)

    def strikes(self, *conditions: ColumnElement[bool], **values: Any) -> list[StrikeRow]:
        return self.stored(StrikeRow, *conditions, **values)

    def content(self, *tables: str) -> dict[str, list[str]]:
        """All rows of these tables as texts, to compare what was before with what is after."""
        return {name: sorted(map(repr, self.rows(f"SELECT * FROM unwind.{name}"))) for name in tables}  # noqa: S608

    def feed(self) -> list[dict[str, Any]]:
        """All events of the feed, which has them a moment later while transactions of other databases end."""
        tables = ("events", "stock_moves", "ledger_lines", "bills")

        def settled_events() -> list[dict[str, Any]] | None:
            with self.simulation.database.transaction() as conn:
                events = [event for _, event in feed.events_after(conn, None, 10_000)]
            return events if len(events) == sum(map(self.count, tables)) else None

        events: list[dict[str, Any]] = wait_until(settled_events, what="the feed of all events")
        return events

    def row(self, sql: str, **values: Any) -> Any:
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.simulation.database.transaction() as conn:
            return list(conn.execute(text(sql), values))


@pytest.fixture
def market(simulation: Simulation) -> Market:
    simulation.clock.instant = ORDERED
    return Market(simulation)
