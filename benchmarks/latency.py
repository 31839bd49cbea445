"""Latency of single callers: commands one after the other with a pause between, as at light load."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from celery import Celery

from benchmarks import reference_writes
from benchmarks.environment import Environment
from benchmarks.harness import check_equal
from benchmarks.workloads import BROKERS, Workloads

PAUSE_SECONDS = 0.01
TIMEOUT = 30.0


@contextmanager
def caller(environment: Environment, broker: int) -> Iterator[Celery]:
    client = Celery(
        "upstream", broker=environment.broker(broker), backend=environment.broker(broker + 1), set_as_current=False
    )
    client.conf.task_create_missing_queues = True
    yield client
    client.close()


def ours(workloads: Workloads, client: Celery, count: int, then: Callable[[int], None] | None = None) -> list[float]:
    first, last = workloads.slices.take(count)
    spent = []
    for order_id in range(first, last + 1):
        spent.append(_ask(client, "orders.cancel", "commands", workloads.order(order_id)))
        if then is not None:
            then(order_id)
    reference_writes.check(workloads.conn, first, last, workloads.market.lines)
    return spent


def bare(workloads: Workloads, client: Celery, count: int) -> list[float]:
    first, last = workloads.slices.take(count)
    spent = [_ask(client, "bare.cancel", "bare", {"order_id": order_id}) for order_id in range(first, last + 1)]
    reference_writes.check(workloads.conn, first, last, workloads.market.lines)
    return spent


def _ask(client: Celery, task: str, queue: str, arguments: dict[str, object]) -> float:
    threading.Event().wait(PAUSE_SECONDS)
    began = time.perf_counter()
    answer = client.send_task(task, kwargs=arguments, queue=queue).get(timeout=TIMEOUT)
    spent = time.perf_counter() - began
    check_equal(f"the outcome of {task}", answer["outcome"], "done")
    return spent


def percentile(spent: Sequence[float], share: float) -> float:
    """Return the percentile `share` of the sorted values, in milliseconds."""
    ordered = sorted(spent)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * 1000


BARE_BROKER = BROKERS["bare"]
