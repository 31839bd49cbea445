"""What does the door beside the broker's give?  Commands inserted singly by two clients, drained in sets by one worker.

From the first insert to the last kept answer, while the clients are still inserting; against the bare Celery task of B4, whose
messages lie in the queue already.
"""

from __future__ import annotations

from benchmarks import bound, load, writes
from benchmarks.environment import Place, until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, by_turns, must_be, result, told
from benchmarks.market import BLOCK
from benchmarks.workloads import Cells, cancelling, compared

SUBMIT = (
    "SELECT unwind.submit_command('orders.cancel', jsonb_build_object('order_id', CAST(:first AS bigint), 'member_id', "
    f"'s-' || ((CAST(:first AS bigint) - 1) / {BLOCK} % {{sellers}})), 'door:' || CAST(:first AS bigint))"
)


def run(place: Place, scale: Scale, step: Step) -> list[Result]:
    """Five pairs on one market."""
    size, jobs = scale.of(500, 6_000), scale.of(200, 2_000)
    step("making a market")
    with cancelling(place, (size + jobs) * (scale.pairs + 1) + jobs, "bare", ours=1) as cells:
        step("warming up")
        compared(cells, jobs, cells.one_by_one, lambda count: cells.celery("bare", count))
        found = by_turns(
            scale.pairs,
            told(step, "SQL door", lambda: through_the_door(cells, size)),
            told(step, "bare Celery", lambda: cells.celery("bare", jobs)),
        )
    notes = [f"the inserts: {bound.driven_by()}"]
    return [result("B5", "SQL door, one worker / bare Celery task", "orders/s", Bar(3, 5), *found, notes=notes)]


def through_the_door(cells: Cells, count: int) -> float:
    """Orders per second, from the first insert to the last answer."""
    first, last = cells.slices.take(count)
    bound.per_second(cells.place, cells.database, SUBMIT.format(sellers=cells.market.sellers), first, count)
    of_range = f"FROM unwind.submissions WHERE order_id BETWEEN {first} AND {last}"
    left = f"SELECT {count} - count(*) {of_range} AND state = 'answered'"
    until(lambda: load.value(cells.conn, left) == 0, load.MAX_DURATION, every=0.1)
    must_be(
        "answers `done`", load.value(cells.conn, f"SELECT count(*) {of_range} AND answer ->> 'outcome' = 'done'"), count
    )
    writes.check(cells.conn, first, last, cells.market.lines)
    spent = load.value(cells.conn, f"SELECT max(answered_at) - min(submitted_at) {of_range}")
    return count / float(spent.total_seconds())


BENCH = Bench("B5", "the SQL door against bare Celery", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 70}, run)
