"""B7: B6 with two processes and two scans at once, against the same raw statement, which can't be shared."""

from __future__ import annotations

from benchmarks import b06_unlock_a_million_alerts
from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    return b06_unlock_a_million_alerts.run(
        environment, scale, step, workers=2, measure="B7", bar=Bar(0.85, 0.7, at_least=False)
    )


BENCH = Bench(
    "B7", "two scanners at once against one raw statement", lambda s: 1 + 2 * s.pairs, {"quick": 12, "normal": 180}, run
)
