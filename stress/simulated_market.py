"""A market in this process with a settable clock, to play a few commands and run the checks of a torture run on them.

It uses the same record of commands, the same oracle and the same comparisons as a run.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from models.db import database as db
from stress import plan
from stress.answer_checks import contradictions
from stress.db_checks import compare_with_reference, open_connection, unexpected_rows, unfinished_outbox_messages
from stress.oracle import Oracle
from stress.run import seed_lines
from stress.sent_commands import Ledger, Sent
from tasks.process_services import services
from tests.plugins.stored_rows import DatabaseRows
from workers.app import app
from workers.simulation.engine import Simulation
from workers.simulation.replay import parse_lines, play

UNDONE = "SELECT outbox_id, task FROM unwind.outbox WHERE state <> 'done' AND created_at < %s"
LOCKED_OUT = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
BACK = timedelta(minutes=40)
"""How far in the past the clock of a simulated market starts, so that scenarios can advance it."""


def seed_history(database_url: str) -> None:
    lines = parse_lines(json.dumps(line) for line in seed_lines(2 * BACK))
    with Simulation(database_url, at=lines[0].at, allow_short=True) as simulation:
        answers = [played.result["outcome"] for played in play(lines, simulation)]
    assert set(answers) == {"done"}


class SimulatedMarket:
    """A marketplace with terms of seconds, on a database of its own."""

    def __init__(self, database_url: str) -> None:
        """`database_url` names a database that contains the seed history and nothing else."""
        self.database_url = database_url
        self.simulation = Simulation(database_url, at=DatabaseRows(database_url).server_time() - BACK)
        self.ledger = Ledger()
        self.oracle = Oracle(self.ledger)
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.recorded_violations: list[str] = []
        self._orders = itertools.count(plan.FIRST_ORDER)

    @contextmanager
    def standing(self) -> Iterator[SimulatedMarket]:
        with self.simulation:
            yield self

    def do(self, task: str, request_id: str = "", **arguments: Any) -> dict[str, Any] | None:
        """Send a command and return its answer; None without one.  Repeating an id repeats the message."""
        request_id = request_id or f"t-{len(self.ledger.sent)}"
        self.send(request_id, task, arguments)
        return self.execute(request_id)

    def send(self, request_id: str, task: str, arguments: dict[str, Any]) -> None:
        if request_id not in self.ledger.sent:
            self.ledger.add(Sent(request_id, task, arguments, plan.BROKER, 0.0))

    def execute(self, request_id: str) -> dict[str, Any] | None:
        sent = self.ledger.sent[request_id]
        try:
            answer: dict[str, Any] = app.tasks[sent.task].validate_and_run(
                {**sent.arguments, "request_id": request_id}, request_id
            )
        except Exception:  # noqa: BLE001 - whatever it is, the producer has no answer
            return None
        self.answers.append((request_id, answer))
        return answer

    def buy(self, *, requested: bool = False, seller: str = "s0", buyer: str = "") -> int:
        """Submit an order and return its id; `requested`: the buyer requests its cancellation."""
        order_id = next(self._orders)
        buyer = buyer or f"b{order_id}"
        self.do("members.record", **plan.member_arguments(buyer))
        lines = [{"lot_id": plan.lot_id(seller, 1), "quantity": 5}]
        self.do("orders.submit", order_id=order_id, buyer_id=buyer, seller_id=seller, lines=lines)
        if requested:
            self.do("ocr.file", order_id=order_id, member_id=buyer, reason="B_MUTUAL", comment="Please.")
        self.simulation.process_outbox()
        return order_id

    def advance(self, seconds: float) -> None:
        self.simulation.advance(self.simulation.clock.instant + timedelta(seconds=seconds))

    def process_concurrently(self, *request_ids: str, order_id: int) -> None:
        """Receive several messages about one order before any of them is processed."""
        wide = db.connect(self.database_url, clock=self.simulation.clock, pool_size=len(request_ids))
        db.set_database(wide)
        try:
            with open_connection(self.database_url) as holder, open_connection(self.database_url) as looker:
                with holder.transaction():
                    holder.execute("SELECT FROM unwind.orders WHERE order_id = %s FOR UPDATE", [order_id])
                    threads = [threading.Thread(target=self.execute, args=[sent]) for sent in request_ids]
                    for thread in threads:
                        thread.start()
                    _until(lambda: _first(looker.execute(LOCKED_OUT)) == len(threads))
                for thread in threads:
                    thread.join(20)
        finally:
            db.set_database(self.simulation.database)
            wide.dispose()

    @contextmanager
    def kill_next_commit(self) -> Iterator[None]:
        """Terminate the session at its next commit, so that the transaction is lost."""

        def die(conn: Any) -> None:
            event.remove(self.simulation.database.engine, "commit", die)
            with open_connection(self.database_url) as killer:
                pid = conn.connection.dbapi_connection.info.backend_pid
                killer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        event.listen(self.simulation.database.engine, "commit", die)
        yield

    @contextmanager
    def publishing(self, lost: int = 0) -> Iterator[None]:
        stub = _PublisherStub(lost)
        services.publisher = stub
        try:
            yield
            for _ in range(40):
                app.tasks["outbox.relay"].validate_and_run({}, "tick")
                stub.deliver()
                self.simulation.clock.instant += timedelta(seconds=5)
        finally:
            services.publisher = None

    def violations(self) -> list[str]:
        with open_connection(self.database_url) as conn:
            violations = self.oracle.judge(conn)
            violations += compare_with_reference(conn, self.oracle, list(self.oracle.reference.orders))
            violations += unexpected_rows(conn, [])
            violations += contradictions(conn, self.answers)[1]
            late = self.simulation.clock.instant - timedelta(seconds=90)
            unfinished = conn.execute(UNDONE, [late])
            violations += [f"{task} ({n}) is in the outbox and was never done" for n, task in unfinished]
        database = self.simulation.database
        with database.transaction() as work:
            now = database.clock.now(work)
        return [*self.recorded_violations, *violations, *unfinished_outbox_messages(self.database_url, now)]


class _PublisherStub:
    def __init__(self, lost: int) -> None:
        self._lost = lost
        self._published: list[tuple[str, list[int]]] = []

    def publish(self, task: str, rows: Sequence[int]) -> None:
        if self._lost:
            self._lost -= 1
        else:
            self._published.append((task, list(rows)))

    def broker_epoch(self) -> str | None:
        return None

    def deliver(self) -> None:
        while self._published:
            task, rows = self._published.pop(0)
            app.tasks[task].validate_and_run({"rows": rows}, "publish")


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come to that")
        time.sleep(0.01)  # there is no event for a session that waits for a lock


def _first(rows: Any) -> Any:
    return rows.fetchone()[0]
