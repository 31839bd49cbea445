"""Plays the demo: reads each change from the timeline and sends the commands of its buyers and sellers.

It sends them as an upstream system does, through a plain Celery client without code of this repository, as
docs/integrate.md shows.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import click
from celery import Celery
from sqlalchemy import Row, func, select

from models.db import database as db
from models.db.selects import count_where
from models.ddl.views import V_UNLOCK_FORECAST
from models.events import EventRow
from models.notices import NoticeRow
from models.outbox import OutboxRow
from workers.settings import Settings
from workers.simulation.demo.sample_market import SampleMarket

DEMO_TIMEOUT_SECONDS = 45.0

_UNLOCK = V_UNLOCK_FORECAST.as_table().c
OUTCOMES = {"orders.cancelled": "cancelled", "ocr.declined": "declined", "npb.removed": "removed"}
SELLER, BUYER = 0, 1  # the parties of an order in the sample


@contextlib.contextmanager
def connect_to_demo(settings: Settings) -> Iterator[tuple[db.Database, Celery]]:
    urls = settings.environment()
    broker, backend = urls["CELERY_BROKER_URL"], urls["CELERY_RESULT_BACKEND"]
    database = db.connect(urls["DATABASE_URL"])
    with Celery("storefront", broker=broker, backend=backend, set_as_current=False) as client:
        try:
            yield database, client
        finally:
            database.dispose()


class DemoRun:
    def __init__(self, sample: SampleMarket, database: db.Database, client: Celery) -> None:
        self.sample, self.database, self._client = sample, database, client
        with database.transaction() as conn:
            self._events_before = conn.scalar(select(func.coalesce(func.max(EventRow.event_id), 0)))
            self.unlocks: dict[int, datetime] = dict(conn.execute(select(_UNLOCK.order_id, _UNLOCK.unlocks_at)).all())
            self.started_at = database.clock.now(conn)
        self._clock = time.monotonic()
        self._followed: set[int] = set()
        self._outcomes: dict[str, set[int]] = defaultdict(set)
        """The orders that were unlocked, cancelled, declined and removed."""
        self._commands: list[tuple[str, int, Any]] = []

    def now(self) -> datetime:
        return self.started_at + timedelta(seconds=time.monotonic() - self._clock)

    def open(self) -> None:
        for order_id in sorted(self.sample.penalty_accepted):
            self._send("npb.accept_penalty", order_id, BUYER)
        for order_id in sorted(self.sample.agreed_requests | self.sample.declined_requests):
            reason = {"reason": "B_MUTUAL", "comment": "We talked about it: I ordered the wrong colour."}
            self._send("ocr.file", order_id, BUYER, **reason)

    def follow(self) -> Iterator[Row[Any]]:
        end = time.monotonic() + DEMO_TIMEOUT_SECONDS
        while not self._is_complete():
            with self.database.transaction() as conn:
                # Also those numbered below a followed one: transactions commit in another order than their events are
                # numbered.
                new = (EventRow.event_id > self._events_before, EventRow.event_id.not_in(self._followed))
                events = conn.execute(select(EventRow).where(*new).order_by(EventRow.event_id)).all()
            self._followed |= {event.event_id for event in events}
            for event in events:
                if event.order_id is not None:
                    self._react_to_event(event.type, event.order_id)
                yield event
            self._check_answers()
            if time.monotonic() > end:
                missing = self._missing_outcomes().items()
                parts = [f"not {name}: {', '.join(map(str, sorted(ids)))}" for name, ids in missing]
                parts += [f"unanswered: {task} for order {order_id}" for task, order_id, _ in self._commands]
                why = "; ".join(parts) or "some outbox messages or notices are not done"
                raise click.ClickException(f"After {DEMO_TIMEOUT_SECONDS:.0f} s the demo is not complete; {why}.")
            if not events:
                time.sleep(0.15)

    def _react_to_event(self, event_type: str, order_id: int) -> None:
        sample = self.sample
        if event_type in OUTCOMES:
            self._outcomes[OUTCOMES[event_type]].add(order_id)
        elif event_type == "npb.penalty_accepted":
            self._send("orders.cancel", order_id, SELLER)
        elif event_type == "ocr.filed":
            self._send("orders.cancel" if order_id in sample.agreed_requests else "ocr.decline", order_id, SELLER)
        elif event_type.endswith(".unlocked"):
            self._outcomes["unlocked"].add(order_id)
            if order_id in sample.sellers_cancel | sample.buyers_cancel:
                self._send("orders.cancel", order_id, SELLER if order_id in sample.sellers_cancel else BUYER)
            elif order_id in sample.sellers_remove:
                self._send("npb.remove", order_id, SELLER, comment="The money came today.")

    def _send(self, task: str, order_id: int, party: int, **arguments: Any) -> None:
        member_id = self.sample.parties[order_id][party]
        arguments |= {"order_id": order_id, "member_id": member_id, "request_id": f"demo:{task}:{order_id}"}
        self._commands.append((task, order_id, self._client.send_task(task, kwargs=arguments, queue="commands")))

    def _check_answers(self) -> None:
        unanswered = []
        for task, order_id, result in self._commands:
            if not result.ready():
                unanswered.append((task, order_id, result))
            elif result.failed() or result.result["outcome"] != "done":
                raise click.ClickException(f"{task} for order {order_id} was answered with {result.result}.")
        self._commands = unanswered

    def _is_complete(self) -> bool:
        if self._commands or self._missing_outcomes():
            return False
        with self.database.transaction() as conn:
            return not any(conn.scalar(count_where(c)) for c in (OutboxRow.state != "done", NoticeRow.state != "sent"))

    def _missing_outcomes(self) -> dict[str, set[int]]:
        expected = {
            # An alert that leads to a cancellation at once may be used before a sweep marks it as unlocked.
            "unlocked": self.sample.unlocking - self.sample.automatic,
            "cancelled": self.sample.ending_cancelled,
            "declined": self.sample.declined_requests,
            "removed": self.sample.sellers_remove,
        }
        return {name: orders for name in expected if (orders := expected[name] - self._outcomes[name])}
