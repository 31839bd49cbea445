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
    sets, jobs = scale.of(1_000, 10_000), scale.of(200, 2_000)
    step("making a market")
    with cancellation_workloads(environment, (sets + jobs * 2) * (scale.pairs + 1), "peer") as cells:
        step("warming up")
        compare(cells, jobs, lambda count: cells.peer("product", count), lambda count: cells.peer("function", count))
        cells.in_sets(sets)
        ours, product, function = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel_many", lambda: cells.in_sets(sets)),
            with_progress(step, "dramatiq, product's body", lambda: cells.peer("product", jobs)),
            with_progress(step, "dramatiq, SQL function", lambda: cells.peer("function", jobs)),
        )
    what = "cancel in batches of 100 / dramatiq, one job per order"
    peers = {"dramatiq calling one SQL function, no rules": statistics.median(function)}
    return [result("B2", what, "orders/s", Bar(3, 5), ours, product, peers=peers)]


BENCH = Bench("B2", "batches of 100 against dramatiq", lambda s: 2 + 3 * s.pairs, {"quick": 14, "normal": 90}, run)
