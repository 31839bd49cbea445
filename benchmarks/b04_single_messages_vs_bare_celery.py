"""B4: one order per message against a bare Celery task, and B4b: against dramatiq.

`orders.cancel` through the whole product against tasks that call one SQL function doing the same writes and check no
rule.  Two processes each; the bare Celery task stores its answers, as the product does, dramatiq stores none.
"""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import cancellation_workloads, compare


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(200, 2_000)
    step("making a market")
    with cancellation_workloads(environment, size * 3 * (scale.pairs + 1), "bare", "peer") as workloads:
        step("warming up")
        compare(workloads, size, workloads.in_single_messages, lambda count: workloads.celery("bare", count))
        workloads.peer("function", size)
        ours, bare, dramatiq = alternate(
            scale.pairs,
            with_progress(step, "orders.cancel", lambda: workloads.in_single_messages(size)),
            with_progress(step, "bare Celery", lambda: workloads.celery("bare", size)),
            with_progress(step, "dramatiq, SQL function", lambda: workloads.peer("function", size)),
        )
    return [
        result("B4", "cancel one per message / bare Celery task", "orders/s", Bar(2.5, 4.0), ours, bare),
        result(
            "B4b",
            "cancel one per message / dramatiq calling one SQL function, no rules",
            "orders/s",
            Bar(1.4, 2.0),
            ours,
            dramatiq,
        ),
    ]


BENCH = Bench(
    "B4", "one per message against other queues", lambda s: 2 + 3 * s.pairs, {"quick": 18, "normal": 100}, run
)
