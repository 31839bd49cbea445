"""B8: cost of a scan that finds nothing, with a million open alerts against ten thousand.

Measures what `npb.scan_open_alerts` executes in its own transaction (`--full`: five million alerts), and the duration
of the whole task.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from benchmarks.market import Market
from models import alerts
from models.db import database as db
from models.unit_of_work import unit_of_work
from policies.cases import AlertKind
from tasks.npb import scan_open_alerts
from tasks.sweeps import BATCH_SIZE

SMALL = 10_000
REPETITIONS = 200


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    big = scale.of(20_000, 1_000_000, 5_000_000)
    step(f"making {big:,} open alerts")
    with ExitStack() as stack:
        results = []
        for name, size in (("waiting_few", SMALL), ("waiting", big)):
            environment.template(name, Market(size, lines=0, state="waiting", history=name == "waiting"))
            database = db.connect(environment.url(name))
            stack.callback(database.dispose)
            results.append(database)
        few, many = results
        stack.callback(db.set_database, None)
        repetitions = scale.of(20, REPETITIONS)
        at_few, at_many = alternate(
            scale.pairs,
            with_progress(step, f"{SMALL:,} open", lambda: sweep_milliseconds(few, repetitions)),
            with_progress(step, f"{big:,} open", lambda: sweep_milliseconds(many, repetitions)),
        )
        task_milliseconds_of_many = task_milliseconds(many, repetitions)
    return [
        result(
            "B8",
            f"idle scan at {big:,} / at {SMALL:,} open alerts",
            "ms",
            Bar(1.5, 1.2, at_least=False),
            at_many,
            at_few,
        ),
        result(
            "B8 ms",
            f"idle scan at {big:,} open alerts",
            "ms",
            Bar(2, 2, at_least=False, unit=" ms"),
            at_many,
            [],
            at_many,
            notes=[f"the whole task with its commit: {task_milliseconds_of_many:.2f} ms"],
        ),
    ]


def sweep_milliseconds(database: db.Database, repetitions: int) -> float:
    """Return the median milliseconds of a scan that finds nothing."""
    db.set_database(database)
    spent = []
    for _ in range(repetitions):
        with unit_of_work() as work:
            _ = work.now
            began = time.perf_counter()
            unlocked = alerts.UnlockSweep([AlertKind.NPB])(work, BATCH_SIZE)
            spent.append(time.perf_counter() - began)
            check_equal("alerts due and unlocked", unlocked, (0, 0))
    return statistics.median(spent) * 1000


def task_milliseconds(database: db.Database, repetitions: int) -> float:
    """Return the median milliseconds of the task's body, commit included."""
    db.set_database(database)
    spent = []
    for _ in range(repetitions):
        began = time.perf_counter()
        check_equal("what the scan found", scan_open_alerts.run(), {"unlocked": 0})
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1000


BENCH = Bench(
    "B8",
    "an idle scan at a million and at ten thousand",
    lambda s: 1 + 2 * s.pairs,
    {"quick": 6, "normal": 75, "full": 300},
    run,
)
