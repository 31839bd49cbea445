"""B11: latency of one committed cancellation at light load, against the bare Celery task of B4.

Measured from `send_task` to the answer; both sides have committed the same writes and answer through the result
backend.
"""

from __future__ import annotations

from benchmarks import latency
from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    calls = scale.of(50, 300)
    step("making a market")
    rounds: dict[str, list[list[float]]] = {"ours": [], "bare": []}
    with (
        cancellation_workloads(environment, (calls * 2) * (scale.pairs + 1), "bare") as workloads,
        latency.caller(environment, workloads.broker) as client,
        latency.caller(environment, latency.BARE_BROKER) as bare_client,
    ):
        step("warming up")
        compare(
            workloads,
            calls,
            lambda n: latency.ours(workloads, client, n)[0],
            lambda n: latency.bare(workloads, bare_client, n)[0],
        )

        def ours() -> float:
            rounds["ours"].append(latency.ours(workloads, client, calls))
            return 0.0

        def bare() -> float:
            rounds["bare"].append(latency.bare(workloads, bare_client, calls))
            return 0.0

        alternate(scale.pairs, with_progress(step, "orders.cancel", ours), with_progress(step, "bare Celery", bare))
    results = []
    for name, share, bar in (("p50", 0.5, Bar(2.5, 1.8, at_least=False)), ("p99", 0.99, Bar(3.0, 1.8, at_least=False))):
        sides = [[latency.percentile(times, share) for times in rounds[side]] for side in ("ours", "bare")]
        results.append(result(f"B11 {name}", f"latency at light load, {name} / bare Celery task", "ms", bar, *sides))
    return results


BENCH = Bench(
    "B11", "latency at light load against bare Celery", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 110}, run
)
