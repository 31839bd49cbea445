"""Test that overlapping batches never deadlock: eight workers on one store.

`models.cases` defines the order of locks; code that takes them in another order fails here.  It takes thirty seconds
among the long tests; `OVERLAP_SECONDS=600` runs it for ten minutes.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from benchmarks.market import Market, build
from models import outbox
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.integrity import invariants
from tests.plugins.servers import libpq_url
from workers.app import app

WORKERS = 8
ORDERS = 1000
LINES = 3
SET = 40
FIRST_NEW = 1_000_000
SECONDS = float(os.environ.get("OVERLAP_SECONDS", "30"))
FOLLOWERS = ("removals.cancel_pending", "credits.post_to_next_invoice", "notices.tell_seller", "notices.tell_buyer")


class Worker(threading.Thread):
    def __init__(self, number: int, until: float) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self._chance = random.Random(number)
        self._number, self._until = number, until
        self._asked = 0
        self._mine: list[int] = []
        self.did: Counter[str] = Counter()
        self.failed: BaseException | None = None

    def run(self) -> None:
        plays = (
            self.cancel_many,
            self.cancel_many,
            self.cancel_many,
            self.cancel_one,
            self.sell,
            self.request,
            self.follow,
        )
        try:
            while time.monotonic() < self._until:
                self._chance.choice(plays)()
        except BaseException as error:  # noqa: BLE001 - the test shall say what it was
            self.failed = error

    def cancel_many(self) -> None:
        known = [*self._chance.sample(range(1, ORDERS + 1), SET), *self._mine[-5:]]
        self._chance.shuffle(known)
        answer = self._execute("orders.cancel_many", orders=[{"order_id": n, "member_id": "s-0"} for n in known])
        self.did.update({f"cancel {outcome}": n for outcome, n in answer["effects"]["counts"].items()})

    def cancel_one(self) -> None:
        answer = self._execute("orders.cancel", order_id=self._chance.randint(1, ORDERS), member_id="s-0")
        self.did[f"cancel {answer['outcome']}"] += 1

    def sell(self) -> None:
        number = FIRST_NEW * (self._number + 1) + self._asked
        lots = self._chance.sample(range(1, 100 * LINES + 1), 4)
        lines = [{"lot_id": lot, "quantity": 1} for lot in lots]
        answer = self._execute(
            "orders.submit", order_id=number, buyer_id=f"b-{self._chance.randint(1, 900)}", seller_id="s-0", lines=lines
        )
        if answer["outcome"] == "done":
            self._mine.append(number)
        self.did[f"sell {answer['outcome']}"] += 1

    def request(self) -> None:
        if not self._mine:
            return
        order = {"order_id": self._chance.choice(self._mine), "member_id": "s-0"}
        self._execute("removals.request", **order, lines=[{"line_no": 1, "quantity": 1}], return_items=True)
        answer = self._execute("ocr.file", **order, reason="S_MUTUAL", comment="we spoke")
        self.did[f"request {answer['outcome']}"] += 1

    def follow(self) -> None:
        task = self._chance.choice(FOLLOWERS)
        retry_on_conflict(app.tasks[task].run)
        self.did["follow"] += 1

    def _execute(self, task: str, **arguments: Any) -> dict[str, Any]:
        self._asked += 1
        answer: dict[str, Any] = app.tasks[task].validate_and_run(arguments, f"w{self._number}-{self._asked}")
        return answer


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 240)
def test_eight_workers_with_overlapping_batches_never_deadlock(database_url: str) -> None:
    """R62: locks are taken in the same order everywhere."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as conn:
        build(conn, Market(ORDERS, lines=LINES, state="due", stores=1))
    database = db.connect(database_url, pool_size=WORKERS)
    db.set_database(database)
    try:
        workers = [Worker(number, time.monotonic() + SECONDS) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(SECONDS + 120)
        assert [worker.failed for worker in workers] == [None] * WORKERS
        settle(database)
        with psycopg.connect(libpq_url(database_url), autocommit=True) as conn:
            conn.execute("ANALYZE")  # autovacuum is off, and the checks below join the largest tables
        with database.transaction() as held:
            held.execute(text("SET LOCAL statement_timeout = '2min'"))
            broken = invariants.query_invariants(held, database.clock.now(held), in_time=False)
    finally:
        db.set_database(None)
        database.dispose()
    did = sum((worker.did for worker in workers), Counter())
    assert not broken, (broken, did)
    assert did["cancel done"] > 100, did
    assert did["cancel refused"] > 100, did
    with psycopg.connect(libpq_url(database_url), autocommit=True) as conn:
        row = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row == (0,), f"{row} deadlocks that were resolved by trying again; {did}"


def settle(database: db.Database) -> None:
    while True:
        with database.transaction() as conn:
            due = outbox.tasks_due(conn, database.clock.now(conn))
        due = [task for task in due if task in FOLLOWERS]
        if not due:
            return
        for task in due:
            retry_on_conflict(app.tasks[task].run)
