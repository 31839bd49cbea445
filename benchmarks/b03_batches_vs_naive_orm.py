"""B3: batches of a hundred against one Celery job per order that uses the ORM."""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    batched, jobs = scale.of(1_000, 10_000), scale.of(100, 400)
    step("making a market")
    with cancellation_workloads(environment, (batched + jobs) * (scale.pairs + 1) + jobs, "naive") as workloads:
        step("warming up")
        compare(workloads, jobs, workloads.in_single_messages, lambda count: workloads.celery("naive", count))
        workloads.in_batches(batched)
        ratios = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel_many", lambda: workloads.in_batches(batched)),
            with_progress(step, "Celery and ORM", lambda: workloads.celery("naive", jobs)),
        )
    return [
        result("B3", "cancel in batches of 100 / naive Celery + ORM job per order", "orders/s", Bar(30, 60), *ratios)
    ]


BENCH = Bench(
    "B3", "batches of 100 against Celery and ORM", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 85}, run
)
