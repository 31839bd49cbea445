"""Clients of a torture run: upstream systems with plain Celery or plain SQL, each in a thread, without product code.

A client without an answer sends the command again with the same request id until it gets one.  It reads answers by SQL;
answers that are not stored there (`invalid`) come from the Celery result backend.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from celery import Celery
from kombu.exceptions import KombuError

from stress.environment import Environment
from stress.plan import BROKER, SQL, Life, Step, Wave, member_arguments
from stress.sent_commands import Ledger, Sent
from tests.plugins.servers import libpq_url
from workers.broker.redis_url import connect

TIMEOUT, MAX_TIMEOUT = 4.0, 16.0
"""Seconds after which a client sends again: the first time, and ever later while there is no answer."""
ASK_BACKEND = 1.5
POLL = 0.1
UNREACHABLE = (KombuError, redis.RedisError, OSError)
ANSWERS = "SELECT request_id, state, answer FROM unwind.command_answers WHERE request_id = ANY(%s)"


class Interfaces:
    """The connections of one upstream system: Celery and the database, reopened when they break."""

    def __init__(self, place: Environment, ledger: Ledger) -> None:
        self._place = place
        self._ledger = ledger
        self._app = Celery("storefront", broker=place.broker_url, backend=place.result_backend, set_as_current=False)
        self._app.conf.update(
            broker_transport_options={"socket_timeout": 3, "socket_connect_timeout": 2},
            task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0},
            broker_connection_timeout=2,
        )
        self._results = connect(place.result_backend, timeout=2)
        self._conn: psycopg.Connection | None = None
        self._late: list[tuple[float, int, Sent]] = []
        self._numbers = itertools.count()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._app.close()
        self._results.close()
        if self._conn is not None:
            self._conn.close()

    def send(self, one: Sent, step: Step | None = None) -> None:
        one.at = time.monotonic()
        one.times += 1
        if one.interface == SQL:
            self.submit([one])
            return
        for _ in range(step.copies if step else 1):
            self._publish(one)
        for wait in step.late if step else ():
            heapq.heappush(self._late, (time.monotonic() + wait, next(self._numbers), one))
        if step:
            self._ledger.count("copies", step.copies - 1 + len(step.late))

    def send_late(self, *, all_of_them: bool = False) -> None:
        while self._late and (all_of_them or self._late[0][0] <= time.monotonic()):
            self._publish(heapq.heappop(self._late)[2])

    def submit(self, many: list[Sent]) -> None:
        try:
            conn = self._connected()
            with conn.transaction(), conn.cursor() as cursor:
                accepted = []
                for one in many:
                    one.at = time.monotonic()
                    cursor.execute(
                        "SELECT unwind.submit_command(%s, %s, %s)",
                        [one.task, json.dumps(one.arguments), one.request_id],
                    )
                    row = cursor.fetchone()
                    accepted.append(bool(row and row[0]["accepted"]))
        except psycopg.Error:
            self._broken("by sql not taken")
            return
        for one, yes in zip(many, accepted, strict=True):
            one.accepted = yes

    def look(self, mine: list[Sent]) -> None:
        if not mine:
            return
        try:
            rows = self._connected().execute(ANSWERS, [[one.request_id for one in mine]]).fetchall()
        except psycopg.Error:
            self._broken("looks failed")
            return
        by_id = {one.request_id: one for one in mine}
        for request_id, state, answer in rows:
            one = by_id.pop(request_id)
            one.accepted = True
            if state == "answered":
                self._ledger.answered(one, answer)
            elif state == "dead":
                self._ledger.answered(one, {"outcome": "dead"})
        old = [one for one in by_id.values() if one.interface == BROKER and time.monotonic() - one.at > ASK_BACKEND]
        with contextlib.suppress(redis.RedisError, OSError):
            for one in old:
                self._ask_backend(one)

    def _ask_backend(self, one: Sent) -> None:
        found = self._results.get(f"celery-task-meta-{one.request_id}")
        meta = json.loads(found) if isinstance(found, bytes) else {}
        answer = meta.get("result")
        if isinstance(answer, dict) and answer.get("outcome") in ("invalid", "conflict"):
            self._ledger.answered(one, answer)

    def _publish(self, one: Sent) -> None:
        try:
            self._app.send_task(
                one.task,
                kwargs={**one.arguments, "request_id": one.request_id},
                queue="commands",
                task_id=one.request_id,
            )
            self._ledger.count("messages")
        except UNREACHABLE:
            self._ledger.count("broker not reached")

    def _connected(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(
                libpq_url(self._place.database_url),
                autocommit=True,
                connect_timeout=2,
                application_name="storefront",
                options="-c statement_timeout=5000",
            )
        return self._conn

    def _broken(self, what: str) -> None:
        self._ledger.count(what)
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def is_overdue(one: Sent) -> bool:
    return time.monotonic() - one.at > min(MAX_TIMEOUT, TIMEOUT * max(1, one.times))


@dataclass
class _ActiveLife:
    life: Life
    at: int = 0
    due: float = 0.0
    request: Sent | None = None
    removal: int | None = None

    @property
    def over(self) -> bool:
        return self.at >= len(self.life.steps) and self.request is None


class Client(threading.Thread):
    """Leads orders through their lives: sends the next command when the previous one is answered."""

    def __init__(self, name: str, place: Environment, ledger: Ledger, lives: Iterator[Life], most: int) -> None:
        super().__init__(name=name, daemon=True)
        self.busy = threading.Event()
        """Set: new commands are given; else only answers are waited for."""
        self.enough = threading.Event()
        self.error: BaseException | None = None
        self._interfaces = Interfaces(place, ledger)
        self._ledger = ledger
        self._lives = lives
        self._most = most
        self._living: list[_ActiveLife] = []

    def run(self) -> None:
        try:
            while not self.enough.wait(POLL):
                self._step()
        except BaseException as error:  # noqa: BLE001 - the run must not go on as if this client were content
            self.error = error
        finally:
            self._interfaces.close()

    def _step(self) -> None:
        if self.busy.is_set():
            self._living = [one for one in self._living if not one.over]
            while len(self._living) < self._most:
                self._living.append(_ActiveLife(next(self._lives)))
            for one in self._living:
                self._go_on(one)
        self._interfaces.send_late(all_of_them=not self.busy.is_set())
        waiting = [one.request for one in self._living if one.request is not None]
        self._interfaces.look(waiting)
        for one in self._living:
            self._hear(one)
        for request in waiting:
            if request.answer is None and is_overdue(request):
                self._ledger.count("sent again")
                self._interfaces.send(request)

    def _go_on(self, one: _ActiveLife) -> None:
        if one.request is not None or one.at >= len(one.life.steps) or time.monotonic() < one.due:
            return
        step = one.life.steps[one.at]
        arguments = step.arguments
        if "removal_id" in arguments:
            if one.removal is None:  # what it asked for was refused
                self._next(one)
                return
            arguments = arguments | {"removal_id": one.removal}
        one.request = Sent(f"t-{one.life.name}-{one.at}", step.task, arguments, one.life.interface, time.monotonic())
        self._ledger.add(one.request)
        self._interfaces.send(one.request, step)

    def _hear(self, one: _ActiveLife) -> None:
        if one.request is None or one.request.answer is None:
            return
        if one.request.task == "removals.request" and one.request.answer["outcome"] == "done":
            one.removal = one.request.answer["effects"]["removal_id"]
        one.request = None
        self._next(one)

    def _next(self, one: _ActiveLife) -> None:
        one.at += 1
        if one.at < len(one.life.steps):
            one.due = time.monotonic() + one.life.steps[one.at].wait


class BulkClient(threading.Thread):
    """Sends waves: buys many orders, requests their cancellation and cancels them, each in one go."""

    def __init__(self, name: str, place: Environment, ledger: Ledger, waves: Iterator[Wave]) -> None:
        super().__init__(name=name, daemon=True)
        self.busy = threading.Event()
        self.enough = threading.Event()
        self.error: BaseException | None = None
        self._interfaces = Interfaces(place, ledger)
        self._ledger = ledger
        self._waves = waves
        self._todo: list[tuple[str, list[Sent]]] = []
        self._waiting: list[Sent] = []

    def run(self) -> None:
        try:
            while not self.enough.wait(POLL):
                self._step()
        except BaseException as error:  # noqa: BLE001 - as above
            self.error = error
        finally:
            self._interfaces.close()

    def _step(self) -> None:
        self._waiting = [one for one in self._waiting if one.answer is None]
        if not self._waiting and self.busy.is_set():
            if not self._todo:
                self._todo = list(_stages(next(self._waves)))
            self._begin(*self._todo.pop(0))
        self._interfaces.look(self._waiting)
        late = [one for one in self._waiting if one.answer is None and is_overdue(one)]
        if late:
            self._ledger.count("sent again", len(late))
            self._give(late)

    def _begin(self, interface: str, requests: list[Sent]) -> None:
        for one in requests:
            one.at = time.monotonic()
            self._ledger.add(one)
            for part in _parts(one):
                self._ledger.add(part, waits=False)
        self._waiting = requests
        self._give(requests)

    def _give(self, requests: list[Sent]) -> None:
        if requests[0].interface == SQL:
            for one in requests:
                one.times += 1
            self._interfaces.submit(requests)
            return
        for one in requests:
            self._interfaces.send(one)


def _stages(wave: Wave) -> Iterator[tuple[str, list[Sent]]]:
    def sent(kind: str, task: str, arguments: dict[str, Any], interface: str = SQL) -> Sent:
        return Sent(f"t-{wave.name}-{kind}", task, arguments, interface, 0.0)

    yield SQL, [sent("member", "members.record", member_arguments(wave.buyer))]
    parties = {"buyer_id": wave.buyer, "seller_id": wave.seller}
    yield (
        SQL,
        [
            sent(f"buy-{n}", "orders.submit", {"order_id": order_id, **parties, "lines": list(lines)})
            for n, (order_id, lines) in enumerate(wave.orders)
        ],
    )
    asked = {"member_id": wave.buyer, "reason": "B_MUTUAL", "comment": "All of it, please."}
    yield SQL, [sent(f"ask-{n}", "ocr.file", {"order_id": o, **asked}) for n, (o, _) in enumerate(wave.orders)]
    items = [{"order_id": order_id, "member_id": wave.seller} for order_id, _ in wave.orders]
    yield BROKER, [sent("cancel", "orders.cancel_many", {"orders": items}, BROKER)]


def _parts(one: Sent) -> list[Sent]:
    if one.task != "orders.cancel_many":
        return []
    return [
        Sent(f"{one.request_id}:{n}", "orders.cancel", dict(item), BROKER, 0.0, part_of=one.request_id)
        for n, item in enumerate(one.arguments["orders"])
    ]
