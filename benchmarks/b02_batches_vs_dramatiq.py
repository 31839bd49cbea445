"""B2: batches of a hundred on Celery against dramatiq with one job per order.

dramatiq runs the body of the product's `orders.cancel` for a single order.  A second dramatiq actor calls the SQL
function of the pgbench reference and checks no rule: the best that another queue could reach.
"""

from __future__ import annotations

import statistics

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    batched, jobs = scale.of(1_000, 10_000), scale.of(200, 2_000)
    step("making a market")
    with cancellation_workloads(environment, (batched + jobs * 2) * (scale.pairs + 1), "peer") as workloads:
        step("warming up")
        compare(
            workloads,
            jobs,
            lambda count: workloads.peer("product", count),
            lambda count: workloads.peer("function", count),
        )
        workloads.in_batches(batched)
        ours, product, function = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel_many", lambda: workloads.in_batches(batched)),
            with_progress(step, "dramatiq, product's body", lambda: workloads.peer("product", jobs)),
            with_progress(step, "dramatiq, SQL function", lambda: workloads.peer("function", jobs)),
        )
    what = "cancel in batches of 100 / dramatiq, one job per order"
    peers = {"dramatiq calling one SQL function, no rules": statistics.median(function)}
    return [result("B2", what, "orders/s", Bar(3, 5), ours, product, peers=peers)]


BENCH = Bench("B2", "batches of 100 against dramatiq", lambda s: 2 + 3 * s.pairs, {"quick": 14, "normal": 90}, run)
