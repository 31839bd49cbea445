"""Cancellation workloads of several benchmarks; each cancels a range of orders and checks the rows afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks import dramatiq_peer, pgbench, queue_load, reference_writes
from benchmarks.environment import Environment
from benchmarks.market import BLOCK, Market, build
from benchmarks.queue_load import OrderRanges
from workers.local.supervisor import SupervisedProgram
from workers.settings import CHECKOUT

BROKERS = {"ours": 0, "bare": 2, "naive": 4, "peer": 6}
"""Databases of the broker; the next number holds the answers."""


@dataclass
class Workloads:
    """A market of unlocked alerts with waiting workers, whose orders are cancelled range by range."""

    environment: Environment
    database: str
    market: Market
    conn: psycopg.Connection
    slices: OrderRanges
    broker: int = BROKERS["ours"]
    runs: int = 0

    def in_batches(self, count: int) -> float:
        """Return orders per second through `orders.cancel_many`, a hundred per message."""
        first, last = self.slices.take(count)
        run = self._run("many")
        jobs = [
            (f"{run}{number}", {"orders": [self.order(order_id) for order_id in range(start, start + BLOCK)]})
            for number, start in enumerate(range(first, last + 1, BLOCK))
        ]
        queue_load.publish(self.environment, "commands", "orders.cancel_many", jobs)
        spent = queue_load.seconds(
            self.environment, self.conn, "commands", self.broker, *queue_load.answered(run, len(jobs))
        )
        return self._rate(first, last, spent)

    def in_single_messages(self, count: int) -> float:
        """Return orders per second through `orders.cancel`; neighbors in the queue are of different stores."""
        first, last = self.slices.take(count)
        run = self._run("one")
        jobs = [(f"{run}{order_id}", self.order(order_id)) for order_id in shuffled_order_ids(first, last)]
        queue_load.publish(self.environment, "commands", "orders.cancel", jobs)
        spent = queue_load.seconds(
            self.environment, self.conn, "commands", self.broker, *queue_load.cancelled(first, last)
        )
        return self._rate(first, last, spent)

    def bound(self, count: int) -> float:
        first, last = self.slices.take(count)
        rate = pgbench.per_second(self.environment, self.database, pgbench.BY_BATCHES, first, count, BLOCK)
        reference_writes.check(self.conn, first, last, self.market.lines)
        return rate

    def celery(self, name: str, count: int) -> float:
        first, last = self.slices.take(count)
        run = self._run(name)
        jobs = [(f"{run}{order_id}", {"order_id": order_id}) for order_id in shuffled_order_ids(first, last)]
        queue_load.publish(self.environment, name, f"{name}.cancel", jobs)
        spent = queue_load.seconds(self.environment, self.conn, name, BROKERS[name], *queue_load.cancelled(first, last))
        return self._rate(first, last, spent)

    def peer(self, actor: str, count: int) -> float:
        first, last = self.slices.take(count)
        run = self._run("peer")
        jobs: list[dict[str, object]] = [{"order_id": order_id} for order_id in shuffled_order_ids(first, last)]
        if actor == "product":
            jobs = [self.order(int(str(job["order_id"]))) | {"request_id": f"{run}{job['order_id']}"} for job in jobs]
        queue_load.empty_staging(self.environment)
        dramatiq_peer.publish(self.environment.broker(queue_load.STAGING_DATABASE), actor, jobs)
        queue = f"dramatiq:{dramatiq_peer.QUEUE}"
        queue_load.move_to_queue(self.environment, f"{queue}.msgs", BROKERS["peer"])
        spent = queue_load.seconds(
            self.environment, self.conn, queue, BROKERS["peer"], *queue_load.cancelled(first, last)
        )
        return self._rate(first, last, spent)

    def order(self, order_id: int) -> dict[str, object]:
        return {"order_id": order_id, "member_id": f"s-{(order_id - 1) // BLOCK % self.market.sellers}"}

    def _run(self, kind: str) -> str:
        self.runs += 1
        return f"{kind}.{self.runs}."

    def _rate(self, first: int, last: int, spent: float) -> float:
        reference_writes.check(self.conn, first, last, self.market.lines)
        return (last - first + 1) / spent


def compare(workloads: Workloads, size: int, ours: Callable[[int], float], reference: Callable[[int], float]) -> None:
    """Warm up both sides on orders of their own and compare the rows they leave."""
    own_range = workloads.slices.next
    ours(size)
    reference_range = workloads.slices.next
    reference(size)
    reference_writes.check_alike(workloads.conn, own_range, reference_range)


def shuffled_order_ids(first: int, last: int) -> list[int]:
    """Return the range in strides of a block, so that two processes do not wait for one store."""
    return [order_id for offset in range(BLOCK) for order_id in range(first + offset, last + 1, BLOCK)]


@contextmanager
def cancellation_workloads(
    environment: Environment,
    orders: int,
    *references: str,
    ours: int = 2,
    groups: Sequence[str] = ("commands",),
    database: str = "cancel",
    broker: int = BROKERS["ours"],
) -> Iterator[Workloads]:
    """Create a market with `orders` unlocked alerts of five lines and start the workers of both sides."""
    market = Market(orders)
    environment.create(database)
    with ExitStack() as stack:
        conn = stack.enter_context(environment.connect(database))
        build(conn, market)
        reference_writes.install(conn)
        settings = environment.settings(database, broker=broker)
        programs = environment.workers(settings, *groups, processes=ours, suffix=f"-{database}")
        programs += [_program(environment, name, database) for name in references]
        stack.enter_context(environment.programs(programs))
        yield Workloads(environment, database, market, conn, OrderRanges(orders), broker)
    environment.drop(database)


def _program(environment: Environment, name: str, database: str) -> SupervisedProgram:
    environment.settings(database, broker=BROKERS[name])  # flushes its databases of the broker
    broker, answers = (environment.broker(BROKERS[name] + number) for number in (0, 1))
    if name == "peer":
        variables = {
            "PEER_BROKER": broker,
            "PEER_DATABASE": environment.plain(database),
            "PEER_PRODUCT": environment.url(database),
        }
        words = [
            sys.executable,
            "-m",
            "benchmarks.end_with_parent",
            str(os.getpid()),
            "dramatiq",
            "benchmarks.dramatiq_peer",
        ]
        words += ["--processes", "2"]
        return SupervisedProgram(name, words, {**variables, "PYTHONPATH": str(CHECKOUT)}, restart=False)
    prefix, module, url = {
        "bare": ("BARE", "benchmarks.bare_celery", environment.plain(database)),
        "naive": ("ORM", "benchmarks.naive_orm", environment.url(database)),
    }[name]
    variables = {f"{prefix}_BROKER": broker, f"{prefix}_BACKEND": answers, f"{prefix}_DATABASE": url}
    return environment.celery(name, module, variables, "-Q", name, "-c", "2")
