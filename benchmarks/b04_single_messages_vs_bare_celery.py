"""B4: one order per message against a bare Celery task.

`orders.cancel` through the whole product against a bare Celery task that calls one SQL function doing the same
writes.  Two processes each, answers in the result backend on both sides.
"""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(200, 2_000)
    step("making a market")
    with cancellation_workloads(environment, size * 2 * (scale.pairs + 1), "bare") as cells:
        step("warming up")
        compare(cells, size, cells.in_single_messages, lambda count: cells.celery("bare", count))
        ratios = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel", lambda: cells.in_single_messages(size)),
            with_progress(step, "bare Celery", lambda: cells.celery("bare", size)),
        )
    return [result("B4", "cancel one per message / bare Celery task", "orders/s", Bar(2.5, 4.0), *ratios)]


BENCH = Bench("B4", "one per message against bare Celery", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 70}, run)
