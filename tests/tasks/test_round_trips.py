"""The number of SQL statements does not depend on the batch size."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from benchmarks.market import Market as Built
from benchmarks.market import build
from models.db.conflicts import retry_on_conflict
from models.db.database import DatabaseClock
from models.orders import OrderRow
from tests.plugins.servers import libpq_url
from tests.plugins.stored_rows import load_rows
from workers.app import app
from workers.simulation.engine import Simulation

SIZES = (1, 10, 100)
SETTLED = 25
"""More statements than any of these needs; a statement per order would be a hundred and more."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    statements: list[str] = []
    execute = psycopg.Cursor.execute

    def record(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(query if isinstance(query, str) else repr(query))
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", record)
    return statements


@pytest.fixture
def many(simulation: Simulation, database_url: str) -> Simulation:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as conn:
        build(conn, Built(333, lines=2, state="due"))
        conn.execute(
            """INSERT INTO unwind.removals (order_id, requested_by, state, lines, requested_at)
            SELECT order_id, 'buyer', 'pending', '[{"line_no": 1, "quantity": 1}]', last_event_at FROM unwind.orders"""
        )
    with simulation.database.transaction() as conn:
        simulation.clock.instant = DatabaseClock().now(conn)
    return simulation


def orders_of(simulation: Simulation, count: int) -> list[dict[str, Any]]:
    with simulation.database.transaction() as conn:
        open_orders = load_rows(conn, OrderRow, status="NPB")[:count]
        return [{"order_id": order.order_id, "member_id": order.seller_id} for order in open_orders]


def count_statements(sent: list[str], run: Callable[[], Any]) -> tuple[int, Any]:
    before = len(sent)
    result = run()
    return len(sent) - before, result


CONSUMERS = ("removals.cancel_pending", "credits.post_to_next_invoice", "notices.tell_seller", "notices.tell_buyer")


def test_a_larger_batch_needs_no_more_statements(many: Simulation, sent: list[str]) -> None:
    costs: dict[str, list[int]] = {}
    for size in SIZES:
        orders = orders_of(many, size)
        cost, answer = count_statements(sent, partial(many.do, "orders.cancel_many", orders=orders))
        assert answer["effects"]["counts"] == {"done": size}
        costs.setdefault("orders.cancel_many", []).append(cost)
        for consumer in CONSUMERS:
            cost, effects = count_statements(sent, partial(retry_on_conflict, app.tasks[consumer].run))
            assert sum(effects.values()) >= size, (consumer, effects)
            costs.setdefault(consumer, []).append(cost)
        many.process_outbox()
    assert {task: (single, ten) for task, (single, ten, _) in costs.items()} == {
        task: (ten, hundred) for task, (_, ten, hundred) in costs.items()
    }
    assert max(cost for row in costs.values() for cost in row) <= SETTLED, costs


def test_a_single_order_is_a_batch_of_one(many: Simulation, sent: list[str]) -> None:
    (order,) = orders_of(many, 1)
    single, _ = count_statements(sent, lambda: many.do("orders.cancel", **order))
    orders = orders_of(many, 100)
    hundred, _ = count_statements(sent, lambda: many.do("orders.cancel_many", orders=orders))
    assert single == hundred


def test_submissions_by_sql_are_executed_in_batches(many: Simulation, sent: list[str]) -> None:
    costs = []
    for size in SIZES:
        orders = orders_of(many, size)
        with many.database.transaction() as conn:
            conn.execute(
                text(
                    "SELECT unwind.submit_command('orders.cancel', p, NULL) "
                    "FROM jsonb_array_elements(CAST(:orders AS jsonb)) AS p"
                ),
                {"orders": json.dumps(orders)},
            )
        many.clock.instant += timedelta(minutes=1)
        cost, effects = count_statements(sent, app.tasks["submissions.drain"].run)
        assert effects == {"taken": size}
        costs.append(cost)
    assert len(set(costs)) == 1, costs


def test_the_answer_of_a_bulk_command_is_stored_by_its_last_commit(many: Simulation) -> None:
    many.do("orders.cancel_many", orders=orders_of(many, 150), request_id="whole")
    with many.database.transaction() as conn:
        commits = conn.execute(
            text(
                "SELECT count(*) AS n, bool_or(request_id = 'whole') AS whole "
                "FROM unwind.requests GROUP BY xmin ORDER BY n"
            )
        )
        assert [tuple(row) for row in commits] == [(51, True), (100, False)]
