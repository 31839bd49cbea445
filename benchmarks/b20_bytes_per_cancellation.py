"""B20: bytes of write-ahead log per cancellation of an order with five lines, up to its commit.

The batches of B1 against the function of the bound, which writes the same rows; without full-page images.
"""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.wal import bytes_written, without_full_page_images
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(1_000, 10_000)
    step("making a market")
    with (
        cancellation_workloads(environment, size * 2 * (scale.pairs + 1)) as workloads,
        without_full_page_images(environment),
    ):
        step("warming up")
        compare(workloads, size, workloads.in_batches, workloads.bound)
        ratios = alternate(
            scale.pairs,
            with_progress(
                step,
                "orders.cancel_many",
                lambda: bytes_written(workloads.conn, lambda: workloads.in_batches(size)) / size,
            ),
            with_progress(
                step, "the bound", lambda: bytes_written(workloads.conn, lambda: workloads.bound(size)) / size
            ),
        )
    bar = Bar(1.3, 1.1, at_least=False)
    return [result("B20", "log written by a cancellation / by the bound's function", "bytes", bar, *ratios)]


BENCH = Bench("B20", "bytes per cancellation", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 90}, run)
