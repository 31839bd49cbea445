"""What do exactly-once, rules, events and answers cost, when every order comes in a message of its own?

`orders.cancel`, one order per Celery message, the whole product path, against a bare Celery task that calls one SQL function
doing the same writes.  Two processes each, answers to the result backend on both sides.
"""

from __future__ import annotations

from benchmarks import writes
from benchmarks.cells import cancelling
from benchmarks.frame import Bar, Bench, Result, Scale, Step, by_turns, result
from benchmarks.place import Place


def run(place: Place, scale: Scale, step: Step) -> list[Result]:
    """Five pairs on one market, each pair on orders of its own."""
    size = scale.of(300, 2_000)
    step("making a market")
    with cancelling(place, size * 2 * (scale.pairs + 1), bare=2) as cells:
        step("warming up")
        ours = cells.slices.take(0)[0]
        cells.one_by_one(size)
        reference = cells.slices.take(0)[0]
        cells.bare(size)
        writes.check_alike(cells.conn, ours, reference)

        def one_by_one() -> float:
            step("orders.cancel")
            return cells.one_by_one(size)

        def bare() -> float:
            step("bare Celery")
            return cells.bare(size)

        found = by_turns(scale.pairs, one_by_one, bare)
    return [result("B4", "cancel one per message / bare Celery task", "orders/s", Bar(0.5, 0.7), *found)]


BENCH = Bench(
    "B4",
    "one order per message against a bare Celery task",
    lambda s: 2 + 2 * s.pairs,
    {"quick": 15, "normal": 70},
    run,
)
