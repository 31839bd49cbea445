"""B23: cancelling behind PgBouncer in transaction mode against cancelling without it, by the same workers' code."""

from __future__ import annotations

import dataclasses
import sys

from pydantic import SecretStr

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import BROKERS, Workloads, cancellation_workloads, compare
from tests.plugins.pooler import PGBOUNCER, pooler

WAYS = (
    ("B23", "orders.cancel", "cancel singly behind PgBouncer / without", Bar(0.4, 0.7)),
    ("B23 sets", "orders.cancel_many", "cancel in batches of 100 behind PgBouncer / without", Bar(0.6, 0.9)),
)


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    if PGBOUNCER is None:
        print("B23 is left out: there is no pgbouncer (Debian: apt-get install pgbouncer).", file=sys.stderr)
        return []
    jobs, batched = scale.of(200, 2_000), scale.of(500, 6_000)
    step("making a market")
    with (
        cancellation_workloads(environment, 2 * (jobs + batched) * (scale.pairs + 1), database="pooled") as direct,
        pooler(environment.plain("pooled")) as url,
    ):
        settings = environment.settings("pooled", broker=BROKERS["bare"])
        addresses = {"database_url": SecretStr(url), "direct_database_url": settings.database_url}
        programs = environment.workers(settings.model_copy(update=addresses), "commands", suffix="-behind-pooler")
        pooled = dataclasses.replace(direct, broker=BROKERS["bare"], runs=1_000_000)
        with environment.programs(programs):
            step("warming up")
            compare(direct, jobs, pooled.in_single_messages, direct.in_single_messages)
            compare(direct, batched, pooled.in_batches, direct.in_batches)
            return [
                result(name, what, "orders/s", bar, *_measure(pooled, direct, task, scale, step, jobs, batched))
                for name, task, what, bar in WAYS
            ]


def _measure(
    pooled: Workloads, direct: Workloads, task: str, scale: Scale, step: Step, jobs: int, batched: int
) -> list[list[float]]:
    def cancel(workloads: Workloads) -> float:
        return workloads.in_single_messages(jobs) if task == "orders.cancel" else workloads.in_batches(batched)

    return alternate(
        scale.pairs,
        with_progress(step, f"{task}, PgBouncer", lambda: cancel(pooled)),
        with_progress(step, task, lambda: cancel(direct)),
    )


BENCH = Bench("B23", "PgBouncer against none", lambda s: 2 + 4 * s.pairs, {"quick": 20, "normal": 120}, run)
