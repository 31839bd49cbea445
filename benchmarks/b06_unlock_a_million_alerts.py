"""B6: unlocking a million alerts in batches against one raw SQL statement.

`npb.scan_open_alerts` in a real worker with one process, batches of 5,000, each with its events and outbox rows,
against one SQL statement writing the same rows in one transaction.
"""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.scans import prepare_scans, sweep_workers

WORKERS = 1
BAR = Bar(1.3, 1.1, at_least=False)


def run(
    environment: Environment, scale: Scale, step: Step, workers: int = WORKERS, measure: str = "B6", bar: Bar = BAR
) -> list[Result]:
    due = scale.of(20_000, 1_000_000)
    step(f"making {due:,} due alerts")
    with prepare_scans(environment, due) as scans, sweep_workers(environment, workers) as client:
        ratios = alternate(
            scale.pairs,
            with_progress(step, "npb.scan_open_alerts", lambda: scans.swept(client, workers)),
            with_progress(step, "one raw statement", scans.raw),
        )
    what = f"scan of {due:,} due, {workers} worker{'s' if workers > 1 else ''} / one raw statement"
    return [result(measure, what, "s", bar, *ratios)]


BENCH = Bench(
    "B6",
    "a scan of a million due alerts against one raw statement",
    lambda s: 1 + 2 * s.pairs,
    {"quick": 12, "normal": 200},
    run,
)
