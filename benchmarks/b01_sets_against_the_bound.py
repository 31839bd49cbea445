"""How near does cancelling in sets come to what PostgreSQL can do at all?

`orders.cancel_many`, a hundred orders a message, through the real worker group with two processes (request rows, events,
outbox, stock, ledger hand-off), against pgbench with two clients doing the same writes, a hundred orders a transaction.
"""

from __future__ import annotations

from benchmarks import bound, writes
from benchmarks.cells import cancelling
from benchmarks.frame import Bar, Bench, Result, Scale, Step, by_turns, result
from benchmarks.place import Place


def run(place: Place, scale: Scale, step: Step) -> list[Result]:
    """Five pairs on one market, each pair on orders of its own."""
    size = scale.of(1_000, 10_000)
    step("making a market")
    with cancelling(place, size * 2 * (scale.pairs + 1)) as cells:
        step("warming up")
        ours = cells.slices.take(0)[0]
        cells.in_sets(size)
        reference = cells.slices.take(0)[0]
        cells.bound(size)
        writes.check_alike(cells.conn, ours, reference)

        def in_sets() -> float:
            step("orders.cancel_many")
            return cells.in_sets(size)

        def at_the_bound() -> float:
            step("pgbench")
            return cells.bound(size)

        found = by_turns(scale.pairs, in_sets, at_the_bound)
    return [
        result(
            "B1",
            "cancel in sets of 100 / PostgreSQL's bound",
            "orders/s",
            Bar(0.35, 0.5),
            *found,
            notes=[f"the bound was driven by {bound.driver().rpartition('/')[2]}"],
        )
    ]


BENCH = Bench(
    "B1",
    "sets of 100 through real workers against pgbench",
    lambda s: 2 + 2 * s.pairs,
    {"quick": 12, "normal": 75},
    run,
)
