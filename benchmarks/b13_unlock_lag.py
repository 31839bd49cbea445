"""B13: delay from an alert's due time to the recorded notice, while a million alerts wait.

A thousand of a million open alerts fall due within a minute; beat, workers and relay run as in production.  The p99
counts.
"""

from __future__ import annotations

import statistics

from benchmarks import latency
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, check_equal, result
from benchmarks.market import Market
from workers.local.process_specs import WORKER_GROUPS, beat_program

DATABASE = "lag"
SPREAD = """
    UPDATE unwind.alerts SET unlocks_at = clock_timestamp() + interval '3 seconds'
        + order_id * interval '1 second' * ({seconds}::float8 / {falling})
    WHERE order_id <= {falling}
"""
RECORDED = "SELECT count(*) FROM unwind.notices WHERE event = 'npb_unlocked'"
LAGS = """
    SELECT extract(epoch FROM n.created_at - a.unlocks_at)::float8 FROM unwind.notices n JOIN unwind.alerts a
        USING (order_id)
    WHERE n.event = 'npb_unlocked'
"""


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    waiting, falling, seconds = scale.of(20_000, 1_000_000), scale.of(100, 1_000), scale.of(6, 60)
    step(f"making {waiting:,} open alerts")
    environment.template("waiting", Market(waiting, lines=0, state="waiting"))
    environment.copy("waiting", DATABASE)
    settings = environment.settings(DATABASE)
    step("starting workers and beat")
    with (
        environment.connect(DATABASE) as conn,
        environment.programs([*environment.workers(settings, *WORKER_GROUPS), beat_program(settings)]),
    ):
        conn.execute(SPREAD.format(seconds=seconds, falling=falling))
        step(f"{falling:,} fall due in {seconds} s")
        wait_until(lambda: conn.execute(RECORDED).fetchone() == (falling,), seconds + 60, every=1.0)
        lags = [lag for (lag,) in conn.execute(LAGS)]
    environment.drop(DATABASE)
    check_equal("notices", len(lags), falling)
    p99 = latency.percentile(lags, 0.99) / 1000
    notes = [f"median {statistics.median(lags):.2f} s, longest {max(lags):.2f} s"]
    bar = Bar(1.5, 1.1, at_least=False, unit=" s")
    what = f"due instant to notice, p99 of {falling:,} among {waiting:,} open"
    return [result("B13", what, "s", bar, [p99], [], [p99], notes=notes)]


BENCH = Bench("B13", "unlock lag among a million open alerts", lambda _: 3, {"quick": 20, "normal": 130}, run)
