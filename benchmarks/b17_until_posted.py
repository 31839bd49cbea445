"""B17: orders per second until the last ledger line of a burst is posted, against the rate of the cancellations alone.

One market has workers for commands alone. The other has all worker groups: its clock stops with the last ledger line.
"""

from __future__ import annotations

import statistics

from benchmarks import queue_load
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import Workloads, cancellation_workloads
from workers.local.process_specs import WORKER_GROUPS

_POSTED = "FROM unwind.ledger_lines WHERE order_id BETWEEN {first} AND {last} AND kind IN ('reset', 'credit')"
_LEFT = """
    SELECT (SELECT count(*) FROM unwind.outbox WHERE state = 'due')
        + (SELECT count(*) FROM unwind.notices WHERE state = 'pending')
"""


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(1_000, 10_000)
    orders = size * (scale.pairs + 1)
    shares: list[float] = []
    step("making two markets")
    with (
        cancellation_workloads(environment, orders, database="alone") as alone,
        cancellation_workloads(environment, orders, database="followed", broker=8, groups=tuple(WORKER_GROUPS)) as all_,
    ):
        step("warming up")
        alone.in_batches(size)
        until_posted(all_, size, [])
        ratios = alternate(
            scale.pairs,
            with_progress(step, "until the last ledger line", lambda: until_posted(all_, size, shares)),
            with_progress(step, "the cancellations alone", lambda: alone.in_batches(size)),
        )
    what = f"{size:,} orders in batches until the last ledger line is posted / B1's"
    notes = [f"of that run's own rate of cancellations: {statistics.median(shares):.2f}"]
    return [result("B17", what, "orders/s", Bar(0.7, 0.85), *ratios, notes=notes)]


def until_posted(workloads: Workloads, count: int, shares: list[float]) -> float:
    """Return orders per second from the first message to the last ledger line, after the emails are sent, too."""
    first, last = workloads.slices.next, workloads.slices.next + count - 1
    spent = count / workloads.in_batches(count)
    posted = _POSTED.format(first=first, last=last)
    wait_until(
        lambda: queue_load.value(workloads.conn, f"SELECT count(*) {posted}") == count,
        queue_load.MAX_DURATION,
        every=0.1,
    )
    cancelled_at = queue_load.value(workloads.conn, queue_load.cancelled(first, last)[1])
    posted_at = queue_load.value(workloads.conn, f"SELECT max(at) {posted}")
    wait_until(lambda: queue_load.value(workloads.conn, _LEFT) == 0, queue_load.MAX_DURATION, every=0.2)
    total = spent + float((posted_at - cancelled_at).total_seconds())
    shares.append(spent / total)
    return count / total


BENCH = Bench("B17", "until the last ledger line", lambda s: 2 + 2 * s.pairs, {"quick": 25, "normal": 240}, run)
