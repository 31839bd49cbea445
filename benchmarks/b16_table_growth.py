"""B16: cancellation in batches on a small market against a large one.

B1's workload on a market of ten thousand orders and on one of half a million (`--full`: two million), alternating,
each with a worker group of its own.
"""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads

SMALL = 10_000


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    big, size = scale.of(20_000, 500_000, 2_000_000), scale.of(500, 1_600)
    step(f"making {big:,} orders")
    with (
        cancellation_workloads(environment, SMALL, database="few", broker=0) as few,
        cancellation_workloads(environment, big, database="many", broker=8) as many,
    ):
        step("warming up")
        for workloads in (few, many):
            workloads.in_batches(size)
        at_many, at_few = alternate(
            scale.pairs,
            with_progress(step, f"among {big:,}", lambda: many.in_batches(size)),
            with_progress(step, f"among {SMALL:,}", lambda: few.in_batches(size)),
        )
    ratios = [small / large for small, large in zip(at_few, at_many, strict=True)]
    what = f"batches of 100 among {SMALL:,} orders / among {big:,}"
    return [result("B16", what, "orders/s", Bar(1.3, 1.15, at_least=False), at_many, at_few, ratios)]


BENCH = Bench(
    "B16",
    "batches of 100 as the tables grow",
    lambda s: 2 + 2 * s.pairs,
    {"quick": 16, "normal": 160, "full": 600},
    run,
)
