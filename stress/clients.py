"""Clients of a torture run: upstream systems with plain Celery, SQL or HTTP, each in a thread, without product code.

A client without an answer sends the command again with the same request id until it gets one.  HTTP clients take
their answers from the responses. The others read them by SQL; answers that are not stored there (`invalid`) come from
the Celery result backend.
"""

from __future__ import annotations

import contextlib
import heapq
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis
from celery import Celery
from kombu.exceptions import KombuError

from policies.timestamps import format_timestamp
from stress.environment import Environment
from stress.plan import BROKER, EXTENSION, HTTP, SQL, Life, Step, Wave, member_arguments
from stress.sent_commands import Ledger, Sent
from tests.plugins.servers import libpq_url
from workers.broker.redis_url import connect_to_redis

TIMEOUT, MAX_TIMEOUT = 4.0, 16.0
"""Seconds after which a client sends again: the first time, and ever later while there is no answer."""
ASK_BACKEND = 1.5
HTTP_WAIT = 3
"""Seconds that the HTTP interface may wait for an answer before its 202."""
HTTP_TIMEOUT = 5.0
HTTP_THREADS = 8
POLL = 0.1
UNREACHABLE = (KombuError, redis.RedisError, OSError)
ANSWERS = "SELECT request_id, state, answer FROM unwind.command_answers WHERE request_id = ANY(%s)"


class Interfaces:
    """The connections of one upstream system: Celery, the database and HTTP, reopened when they break."""

    def __init__(self, environment: Environment, ledger: Ledger) -> None:
        self._environment = environment
        self._ledger = ledger
        self._app = Celery("storefront", set_as_current=False)
        settings = environment.client_settings()
        settings["broker_transport_options"] |= {"socket_timeout": 3, "socket_connect_timeout": 2}
        # Answers are read by polling. Celery's own backend would subscribe to every result and, while Redis is down,
        # hold the thread for 20 s in retries whenever a result is discarded.
        settings["result_backend"] = None
        self._app.conf.update(
            settings,
            task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 0},
            broker_connection_timeout=2,
        )
        self._results = connect_to_redis(environment.result_backend, timeout=2)
        self._conn: psycopg.Connection | None = None
        self._http_threads = ThreadPoolExecutor(HTTP_THREADS, "storefront http")
        self._posts: set[Future[None]] = set()
        self._late: list[tuple[float, int, Sent]] = []
        self._numbers = itertools.count()

    def close(self) -> None:
        self._http_threads.shutdown(cancel_futures=True)
        with contextlib.suppress(Exception):
            self._app.close()
        self._results.close()
        if self._conn is not None:
            self._conn.close()

    def send(self, sent: Sent, step: Step | None = None) -> None:
        sent.at = time.monotonic()
        sent.times += 1
        if sent.interface == SQL:
            self.submit([sent])
            return
        for _ in range(step.copies if step else 1):
            self._deliver(sent)
        for wait in step.late if step else ():
            heapq.heappush(self._late, (time.monotonic() + wait, next(self._numbers), sent))
        if step:
            self._ledger.count("copies", step.copies - 1 + len(step.late))

    def send_late(self, *, flush: bool = False) -> None:
        while self._late and (flush or self._late[0][0] <= time.monotonic()):
            self._deliver(heapq.heappop(self._late)[2])

    def _deliver(self, sent: Sent) -> None:
        if sent.interface == HTTP:
            self._posts.add(self._http_threads.submit(self._post, sent))
        else:
            self._publish(sent)

    def submit(self, commands: list[Sent]) -> None:
        try:
            conn = self._connected()
            with conn.transaction(), conn.cursor() as cursor:
                for sent in commands:
                    sent.at = time.monotonic()
                    cursor.execute(
                        "SELECT unwind.submit_command(%s, %s, %s)",
                        [sent.task, json.dumps(sent.arguments), sent.request_id],
                    )
        except psycopg.Error:
            self._broken("by sql not taken")

    def _post(self, sent: Sent) -> None:
        address = urlsplit(self._environment.http_url)
        headers = {
            "Authorization": f"Bearer {self._environment.api_key}",
            "Content-Type": "application/json",
            "Idempotency-Key": sent.request_id,
            "Prefer": f"wait={HTTP_WAIT}",
        }
        self._ledger.count("http requests")
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=HTTP_TIMEOUT)
        try:
            with contextlib.closing(connection):
                connection.request("POST", f"/v1/commands/{sent.task}", json.dumps(sent.arguments).encode(), headers)
                response = connection.getresponse()
                status, body = response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            self._ledger.count("http not reached")
            return
        if status in (202, 503):
            self._ledger.count(f"http {status}")
        elif status in (200, 409, 422):
            self._ledger.count("http answers")
            self._ledger.answered(sent, body)
        else:
            raise RuntimeError(f"{sent.request_id}: {sent.task} was answered with the HTTP status {status}: {body}")

    def _check_posts(self) -> None:
        ended = {post for post in self._posts if post.done()}
        self._posts -= ended
        for post in ended:
            post.result()

    def fetch_answers(self, commands: list[Sent]) -> None:
        self._check_posts()
        commands = [sent for sent in commands if sent.interface != HTTP]
        if not commands:
            return
        try:
            rows = self._connected().execute(ANSWERS, [[sent.request_id for sent in commands]]).fetchall()
        except psycopg.Error:
            self._broken("looks failed")
            return
        by_id = {sent.request_id: sent for sent in commands}
        for request_id, state, answer in rows:
            sent = by_id.pop(request_id)
            if state == "answered":
                self._ledger.answered(sent, answer)
            elif state == "dead":
                self._ledger.answered(sent, {"outcome": "dead"})
        unanswered = [
            sent for sent in by_id.values() if sent.interface == BROKER and time.monotonic() - sent.at > ASK_BACKEND
        ]
        with contextlib.suppress(redis.RedisError, OSError):
            for sent in unanswered:
                self._ask_backend(sent)

    def _ask_backend(self, sent: Sent) -> None:
        body = self._results.get(f"celery-task-meta-{sent.request_id}")
        meta = json.loads(body) if isinstance(body, bytes) else {}
        answer = meta.get("result")
        if isinstance(answer, dict) and answer.get("outcome") in ("invalid", "conflict"):
            self._ledger.answered(sent, answer)

    def _publish(self, sent: Sent) -> None:
        try:
            self._app.send_task(
                sent.task,
                kwargs={**sent.arguments, "request_id": sent.request_id},
                queue="commands",
                task_id=sent.request_id,
            )
            self._ledger.count("messages")
        except (*UNREACHABLE, AttributeError):  # AttributeError: kombu publishes by a channel that it has just closed
            self._ledger.count("broker not reached")

    def _connected(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(
                libpq_url(self._environment.database_url),
                autocommit=True,
                connect_timeout=2,
                application_name="storefront",
                options="-c statement_timeout=5000",
            )
        return self._conn

    def _broken(self, operation: str) -> None:
        self._ledger.count(operation)
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def is_overdue(sent: Sent) -> bool:
    return time.monotonic() - sent.at > min(MAX_TIMEOUT, TIMEOUT * max(1, sent.times))


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

    def __init__(
        self, name: str, environment: Environment, ledger: Ledger, lives: Iterator[Life], max_active: int
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.busy = threading.Event()
        """Set: new commands are given; else only answers are waited for."""
        self.stop_requested = threading.Event()
        self.error: BaseException | None = None
        self._interfaces = Interfaces(environment, ledger)
        self._ledger = ledger
        self._lives = lives
        self._max_active = max_active
        self._active: list[_ActiveLife] = []

    def run(self) -> None:
        try:
            while not self.stop_requested.wait(POLL):
                self._step()
        except BaseException as error:  # noqa: BLE001 - the run must not go on as if this client were content
            self.error = error
        finally:
            self._interfaces.close()

    def _step(self) -> None:
        if self.busy.is_set():
            self._active = [active for active in self._active if not active.over]
            while len(self._active) < self._max_active:
                self._active.append(_ActiveLife(next(self._lives)))
            for active in self._active:
                self._advance(active)
        self._interfaces.send_late(flush=not self.busy.is_set())
        waiting = [active.request for active in self._active if active.request is not None]
        self._interfaces.fetch_answers(waiting)
        for active in self._active:
            self._receive_answer(active)
        for request in waiting:
            if request.answer is None and is_overdue(request):
                self._ledger.count("sent again")
                self._interfaces.send(request)

    def _advance(self, active: _ActiveLife) -> None:
        if active.request is not None or active.at >= len(active.life.steps) or time.monotonic() < active.due:
            return
        step = active.life.steps[active.at]
        arguments = step.arguments
        if "removal_id" in arguments:
            if active.removal is None:  # the previous command was refused
                self._next(active)
                return
            arguments = arguments | {"removal_id": active.removal}
        if "until" in arguments:
            until = datetime.now(UTC) + timedelta(seconds=EXTENSION)  # noqa: TID251 - of a party, not of the product
            arguments = arguments | {"until": format_timestamp(until)}
        active.request = Sent(
            f"t-{active.life.name}-{active.at}", step.task, arguments, active.life.interface, time.monotonic()
        )
        self._ledger.add(active.request)
        self._interfaces.send(active.request, step)

    def _receive_answer(self, active: _ActiveLife) -> None:
        if active.request is None or active.request.answer is None:
            return
        if active.request.task == "removals.request" and active.request.answer["outcome"] == "done":
            active.removal = active.request.answer["effects"]["removal_id"]
        active.request = None
        self._next(active)

    def _next(self, active: _ActiveLife) -> None:
        active.at += 1
        if active.at < len(active.life.steps):
            active.due = time.monotonic() + active.life.steps[active.at].wait


class BulkClient(threading.Thread):
    """Sends waves: buys many orders, requests their cancellation and cancels them, each in one go or in a burst."""

    def __init__(self, name: str, environment: Environment, ledger: Ledger, waves: Iterator[Wave]) -> None:
        super().__init__(name=name, daemon=True)
        self.busy = threading.Event()
        self.stop_requested = threading.Event()
        self.error: BaseException | None = None
        self._interfaces = Interfaces(environment, ledger)
        self._ledger = ledger
        self._waves = waves
        self._todo: list[tuple[str, list[Sent]]] = []
        self._waiting: list[Sent] = []

    def run(self) -> None:
        try:
            while not self.stop_requested.wait(POLL):
                self._step()
        except BaseException as error:  # noqa: BLE001 - as above
            self.error = error
        finally:
            self._interfaces.close()

    def _step(self) -> None:
        self._waiting = [sent for sent in self._waiting if sent.answer is None]
        if not self._waiting and self.busy.is_set():
            if not self._todo:
                self._todo = list(_stages(next(self._waves)))
            self._begin(*self._todo.pop(0))
        self._interfaces.fetch_answers(self._waiting)
        overdue = [sent for sent in self._waiting if sent.answer is None and is_overdue(sent)]
        if overdue:
            self._ledger.count("sent again", len(overdue))
            self._send_wave(overdue)

    def _begin(self, interface: str, requests: list[Sent]) -> None:
        for sent in requests:
            sent.at = time.monotonic()
            self._ledger.add(sent)
            for part in _parts_of(sent):
                self._ledger.add(part, waits=False)
        self._waiting = requests
        self._send_wave(requests)

    def _send_wave(self, requests: list[Sent]) -> None:
        if requests[0].interface == SQL:
            for sent in requests:
                sent.times += 1
            self._interfaces.submit(requests)
            return
        for sent in requests:
            self._interfaces.send(sent)


def _stages(wave: Wave) -> Iterator[tuple[str, list[Sent]]]:
    def sent(kind: str, task: str, arguments: dict[str, Any], interface: str = SQL) -> Sent:
        return Sent(f"t-{wave.name}-{kind}", task, arguments, interface, 0.0)

    interface = BROKER if wave.in_bursts else SQL
    yield SQL, [sent("member", "members.record", member_arguments(wave.buyer))]
    parties = {"buyer_id": wave.buyer, "seller_id": wave.seller}
    yield (
        interface,
        [
            sent(f"buy-{n}", "orders.submit", {"order_id": order_id, **parties, "lines": list(lines)}, interface)
            for n, (order_id, lines) in enumerate(wave.orders)
        ],
    )
    arguments = {"member_id": wave.buyer, "reason": "B_MUTUAL", "comment": "All of it, please."}
    yield (
        interface,
        [
            sent(f"ask-{n}", "ocr.file", {"order_id": order_id, **arguments}, interface)
            for n, (order_id, _) in enumerate(wave.orders)
        ],
    )
    items = [{"order_id": order_id, "member_id": wave.seller} for order_id, _ in wave.orders]
    if wave.in_bursts:
        yield BROKER, [sent(f"cancel-{n}", "orders.cancel", item, BROKER) for n, item in enumerate(items)]
    else:
        yield BROKER, [sent("cancel", "orders.cancel_many", {"orders": items}, BROKER)]


def _parts_of(sent: Sent) -> list[Sent]:
    if sent.task != "orders.cancel_many":
        return []
    return [
        Sent(f"{sent.request_id}:{n}", "orders.cancel", dict(item), BROKER, 0.0, part_of=sent.request_id)
        for n, item in enumerate(sent.arguments["orders"])
    ]
