"""B1: cancellation in batches against PostgreSQL's own limit.

`orders.cancel_many`, a hundred orders a message, through the real worker group with two processes, against pgbench
with two clients doing the same writes, a hundred orders a transaction.
"""

from __future__ import annotations

from benchmarks import pgbench
from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(1_000, 10_000)
    step("making a market")
    with cancellation_workloads(environment, size * 2 * (scale.pairs + 1)) as workloads:
        step("warming up")
        compare(workloads, size, workloads.in_batches, workloads.bound)
        ratios = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel_many", lambda: workloads.in_batches(size)),
            with_progress(step, "pgbench", lambda: workloads.bound(size)),
        )
    what = "cancel in batches of 100 / PostgreSQL's bound"
    return [result("B1", what, "orders/s", Bar(0.5, 0.6), *ratios, notes=[f"the bound: {pgbench.driver_name()}"])]


BENCH = Bench("B1", "batches of 100 against pgbench", lambda s: 2 + 2 * s.pairs, {"quick": 12, "normal": 75}, run)
