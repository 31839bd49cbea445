"""B8: cost of a scan that finds nothing, with a million open alerts against ten thousand.

Measures what `npb.scan_open_alerts` executes in its own transaction (`--full`: five million alerts), and the duration
of the whole task.  Then the same for the slowest of the five sweeps of automation, with as many deadlines of each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from benchmarks.market import Market
from models.db import database as db
from models.unit_of_work import unit_of_work
from policies.cases import AlertKind
from tasks import automation
from tasks.alerts import UnlockSweep
from tasks.npb import scan_open_alerts
from tasks.sweeps import BATCH_SIZE, DueSweep

AUTOMATION_SWEEPS = (
    automation.FilingSweep,
    automation.WarningSweep,
    automation.CancelSweep,
    automation.AgreementSweep,
    automation.DeclineSweep,
)
SMALL = 10_000
REPETITIONS = 200


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    big = scale.of(20_000, 1_000_000, 5_000_000)
    step(f"making {big:,} open alerts")
    with ExitStack() as stack:
        few, many = (
            _open_market(environment, stack, name, Market(size, lines=0, state="waiting", history=name == "waiting"))
            for name, size in (("waiting_few", SMALL), ("waiting", big))
        )
        stack.callback(db.set_database, None)
        repetitions = scale.of(20, REPETITIONS)
        at_few, at_many = alternate(
            scale.pairs,
            with_progress(step, f"{SMALL:,} open", lambda: sweep_milliseconds(few, repetitions)),
            with_progress(step, f"{big:,} open", lambda: sweep_milliseconds(many, repetitions)),
        )
        task_milliseconds_of_many = task_milliseconds(many, repetitions)
        step(f"making {big:,} deadlines of each automatic act")
        automated_few, automated_many = (
            _open_market(
                environment, stack, f"automated_{size}", Market(size, lines=0, state="waiting", automated=True)
            )
            for size in (SMALL, big)
        )
        automation_at_few, automation_at_many = alternate(
            scale.pairs,
            with_progress(step, f"{SMALL:,} deadlines", lambda: automation_milliseconds(automated_few, repetitions)),
            with_progress(step, f"{big:,} deadlines", lambda: automation_milliseconds(automated_many, repetitions)),
        )
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
        result(
            "B8 automation",
            f"slowest of the five idle sweeps of automation at {big:,} / at {SMALL:,} deadlines of each",
            "ms",
            Bar(1.5, 1.2, at_least=False),
            automation_at_many,
            automation_at_few,
        ),
        result(
            "B8 automation ms",
            f"slowest of the five idle sweeps of automation at {big:,} deadlines of each",
            "ms",
            Bar(2, 2, at_least=False, unit=" ms"),
            automation_at_many,
            [],
            automation_at_many,
        ),
    ]


def _open_market(environment: Environment, stack: ExitStack, name: str, market: Market) -> db.Database:
    environment.template(name, market)
    database = db.connect(environment.url(name))
    stack.callback(database.dispose)
    return database


def sweep_milliseconds(database: db.Database, repetitions: int) -> float:
    """Return the median milliseconds of a scan that finds nothing."""
    return _idle_milliseconds(database, repetitions, lambda: UnlockSweep([AlertKind.NPB]))


def automation_milliseconds(database: db.Database, repetitions: int) -> float:
    """Return the median milliseconds of the slowest of automation's sweeps, which find nothing."""
    return max(_idle_milliseconds(database, repetitions, kind) for kind in AUTOMATION_SWEEPS)


def _idle_milliseconds(database: db.Database, repetitions: int, make_sweep: Callable[[], DueSweep[Any]]) -> float:
    db.set_database(database)
    spent = []
    for _ in range(repetitions):
        with unit_of_work() as work:
            _ = work.now
            began = time.perf_counter()
            due = make_sweep()
            rows, handled, _ = due.handle_batch(work, due.start, BATCH_SIZE)
            spent.append(time.perf_counter() - began)
            check_equal("rows due and handled", (rows, handled), (0, 0))
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
    lambda s: 2 + 4 * s.pairs,
    {"quick": 8, "normal": 130, "full": 600},
    run,
)
