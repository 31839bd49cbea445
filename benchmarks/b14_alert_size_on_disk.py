"""B14: bytes on disk of an open alert, with all its indexes."""

from __future__ import annotations

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, check_equal, result
from benchmarks.market import Market


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    waiting = scale.of(20_000, 1_000_000)
    step(f"making {waiting:,} open alerts")
    environment.template("waiting", Market(waiting, lines=0, state="waiting"))
    with environment.connect("waiting") as conn:
        row = conn.execute(
            "SELECT count(*), pg_table_size('unwind.alerts'), pg_indexes_size('unwind.alerts') "
            "FROM unwind.alerts WHERE state = 'open'"
        ).fetchone()
    assert row is not None
    check_equal("open alerts", row[0], waiting)
    table, indexes = row[1] / waiting, row[2] / waiting
    notes = [f"table {table:.0f}, indexes {indexes:.0f}"]
    bar = Bar(400, 250, at_least=False, unit=" B")
    size = table + indexes
    return [result("B14", f"bytes per open alert at {waiting:,}", "B", bar, [size], [], [size], notes=notes)]


BENCH = Bench("B14", "bytes on disk per open alert", lambda _: 1, {"quick": 3, "normal": 5}, run)
