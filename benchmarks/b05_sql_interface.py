"""B5: throughput of the SQL interface: two clients insert commands singly, one worker processes them in batches.

Measured from the first insert to the last stored answer, while the clients still insert; against the bare Celery task
of B4, whose messages are in the queue already.
"""

from __future__ import annotations

from benchmarks import pgbench, queue_load, reference_writes
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from benchmarks.market import BLOCK
from benchmarks.workloads import Workloads, cancellation_workloads, compare

SUBMIT = (
    "SELECT unwind.submit_command('orders.cancel', jsonb_build_object('order_id', CAST(:first AS bigint), 'member_id', "
    f"'s-' || ((CAST(:first AS bigint) - 1) / {BLOCK} % {{sellers}})), 'sql:' || CAST(:first AS bigint))"
)


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size, jobs = scale.of(500, 6_000), scale.of(200, 2_000)
    step("making a market")
    with cancellation_workloads(environment, (size + jobs) * (scale.pairs + 1) + jobs, "bare", ours=1) as workloads:
        step("warming up")
        compare(workloads, jobs, workloads.in_single_messages, lambda count: workloads.celery("bare", count))
        ratios = alternate(
            scale.pairs,
            with_progress(step, "SQL interface", lambda: submit_by_sql(workloads, size)),
            with_progress(step, "bare Celery", lambda: workloads.celery("bare", jobs)),
        )
    notes = [f"the inserts: {pgbench.driver_name()}"]
    return [result("B5", "SQL interface, one worker / bare Celery task", "orders/s", Bar(3, 5), *ratios, notes=notes)]


def submit_by_sql(workloads: Workloads, count: int) -> float:
    """Orders per second, from the first insert to the last answer."""
    first, last = workloads.slices.take(count)
    pgbench.per_second(
        workloads.environment, workloads.database, SUBMIT.format(sellers=workloads.market.sellers), first, count
    )
    of_range = f"FROM unwind.submissions WHERE order_id BETWEEN {first} AND {last}"
    left = f"SELECT {count} - count(*) {of_range} AND state = 'answered'"
    wait_until(lambda: queue_load.value(workloads.conn, left) == 0, queue_load.MAX_DURATION, every=0.1)
    check_equal(
        "answers `done`",
        queue_load.value(workloads.conn, f"SELECT count(*) {of_range} AND answer ->> 'outcome' = 'done'"),
        count,
    )
    reference_writes.check(workloads.conn, first, last, workloads.market.lines)
    spent = queue_load.value(workloads.conn, f"SELECT max(answered_at) - min(submitted_at) {of_range}")
    return count / float(spent.total_seconds())


BENCH = Bench(
    "B5", "the SQL interface against bare Celery", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 70}, run
)
