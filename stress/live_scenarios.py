"""Scenarios between real processes: one worker group, one broker, and one cut or kill at a chosen point.

Commands are not sent twice here: a lost message stays lost, and its command is never answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import psutil

from stress import worker_hooks
from stress.db_checks import open_connection
from tests.plugins.market import Market
from tests.plugins.proxy import Cut, Proxy
from tests.plugins.upstream import START_TIMEOUT_SECONDS, Installation
from workers.local.process_specs import worker_program

ORDERS = range(1, 41)
"""Their buyer wants each of them cancelled: for one command each, the last ten only to be asked about."""
UNTOUCHED_ORDERS = range(101, 111)
"""Nothing is open on these."""
TIMEOUT = 12.0
"""Seconds for an answer that is to come by itself; a dead worker's messages are back within five."""
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def seed_orders(market: Market) -> None:
    market.lot(1, quantity=100_000)
    for order_id in ORDERS:
        market.order(order_id, [(1, 5)])
        market.done("ocr.file", order_id=order_id, member_id="buyer", reason="B_MUTUAL", comment="Please.")
    for order_id in UNTOUCHED_ORDERS:
        market.order(order_id, [(1, 5)])


@dataclass
class Worker:
    """A worker group behind a proxy, optionally with a mutant."""

    installation: Installation
    path: Proxy
    results: Proxy
    mutant: str | None
    children: int = 2
    name: str = "commands"

    def start(self) -> None:
        settings = self.installation.settings.model_copy(
            update={
                "broker_url": _through_proxy(self.path, self.installation.settings.broker_url),
                "result_backend": _through_proxy(self.results, self.installation.settings.result_backend),
                "concurrency": self.children,
            }
        )
        program = worker_program(settings, self.name)
        hook_settings = json.dumps({"visibility": 5, "mutant": self.mutant})
        environment = {**program.environment, worker_hooks.SETTINGS: hook_settings}
        command = [*program.command, "-I", "stress.worker_hooks"]
        self.installation.supervisor.start(replace(program, command=command, environment=environment, restart=False))
        self.installation.supervisor.wait_ready(START_TIMEOUT_SECONDS, [self.name])

    def kill(self) -> None:
        os.killpg(self.installation.supervisor.pid(self.name), signal.SIGKILL)
        self.end()

    def end(self) -> None:
        with contextlib.suppress(KeyError):
            os.killpg(self.installation.supervisor.pid(self.name), signal.SIGKILL)
        with contextlib.suppress(KeyError):
            self.installation.supervisor.stop([self.name])

    def ask(self, order_id: int, task: str = "orders.cancel") -> str:
        request_id = f"t-{task}-{order_id}-{time.monotonic_ns()}"
        app = self.installation.client()
        arguments = {"order_id": order_id, "member_id": "seller", "request_id": request_id}
        app.send_task(task, kwargs=arguments, queue="commands", task_id=request_id)
        app.close()
        return request_id

    def shared_sessions(self) -> list[str]:
        port = urlsplit(self.installation.database_url).port
        head = psutil.Process(self.installation.supervisor.pid(self.name))
        sessions = [
            connection.laddr.port
            for child in head.children()
            for connection in child.net_connections("tcp")
            if getattr(connection.raddr, "port", None) == port
        ]
        return [
            f"session {n} belongs to several children: each may hear of the other's orders"
            for n in _duplicates(sessions)
        ]

    def unanswered(self, *request_ids: str, seconds: float = TIMEOUT) -> list[str]:
        """Wait and return a sentence for each command without an answer."""
        end = time.monotonic() + seconds
        unanswered = list(request_ids)
        with open_connection(self.installation.database_url) as conn:
            while unanswered and time.monotonic() < end:
                query = "SELECT request_id FROM unwind.requests WHERE request_id = ANY(%s)"
                known = {row[0] for row in conn.execute(query, [unanswered])}
                unanswered = [item for item in unanswered if item not in known]
                time.sleep(0.05)  # there is no event for a row that another process writes
        return [f"{item}: was sent once and never answered" for item in unanswered]


def _duplicates(numbers: list[int]) -> list[int]:
    return sorted({item for item in numbers if numbers.count(item) > 1})


def _through_proxy(path: Proxy, url: Any) -> Any:
    return type(url)(path.url(url.get_secret_value()))


Scenario = Callable[[Worker, Iterator[int]], list[str]]


def killed_in_the_middle(group: Worker, orders: Iterator[int]) -> list[str]:
    """Kill the whole group while it waits for the lock of an order, then start another."""
    group.start()
    order_id = next(orders)
    with (
        open_connection(group.installation.database_url) as holder,
        open_connection(group.installation.database_url) as looker,
        holder.transaction(),
    ):
        holder.execute("SELECT FROM unwind.orders WHERE order_id = %s FOR UPDATE", [order_id])
        command = group.ask(order_id)
        _until(lambda: looker.execute(BLOCKED).fetchone() != (0,))
        group.kill()
    group.start()
    return group.unanswered(command)


def many_at_once(group: Worker, _orders: Iterator[int]) -> list[str]:
    """Send sixty commands to two children and check that no two of them share a database session."""
    group.name = "sweeps"
    group.start()
    violations = group.shared_sessions()
    group.end()
    group.name = "commands"
    group.start()
    app = group.installation.client()
    commands = []
    for n in range(60):
        order_id = (ORDERS[-1 - n % 10], UNTOUCHED_ORDERS[n % 10])[n // 3 % 2]
        arguments = {"order_id": order_id, "member_id": "seller"}
        commands.append((order_id, app.send_task("orders.options", kwargs=arguments, queue="commands")))
    for order_id, sent in commands:
        try:
            answer = sent.get(timeout=TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever the worker says of it
            violations.append(
                f"order {order_id} was answered about another order or not at all: {type(error).__name__}"
            )
            break
        possible = [
            item["possible"] for item in answer["effects"].get("options", []) if item["action"] == "orders.cancel"
        ]
        if possible != [order_id in ORDERS]:
            violations.append(
                f"order {order_id} was answered about another order: {answer['outcome']} {answer['code']}"
            )
    app.close()
    return violations


def cut_acknowledgement(group: Worker, orders: Iterator[int]) -> list[str]:
    """Cut the connection at an acknowledgement; the worker must continue."""
    group.children = 1
    group.start()
    with _cut(group.path, Cut(requested=b"ZREM")):
        first = group.ask(next(orders))
    return group.unanswered(first, *(group.ask(next(orders)) for _ in range(2)), seconds=10)


def cut_delivery(group: Worker, orders: Iterator[int]) -> list[str]:
    """Cut the connection when the broker delivers a message."""
    group.start()
    order_id = next(orders)
    with _cut(group.path, Cut(replied=b"t-orders.cancel-%d-" % order_id)):
        command = group.ask(order_id)
    return group.unanswered(command)


def results_away(group: Worker, orders: Iterator[int]) -> list[str]:
    """Stop the result backend; commands must still run."""
    group.start()
    group.results.closed = True
    group.results.cut_all()
    return group.unanswered(group.ask(next(orders)), seconds=8)


@contextlib.contextmanager
def _cut(path: Proxy, cut: Cut) -> Iterator[None]:
    path.cut(cut)
    yield
    assert cut.happened.wait(10), "it did not come to the cut"


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come to that")
        time.sleep(0.01)  # there is no event for a session that waits for a lock


LIVE_SCENARIOS: dict[str, Scenario] = {
    item.__name__: item
    for item in (killed_in_the_middle, many_at_once, cut_acknowledgement, cut_delivery, results_away)
}
