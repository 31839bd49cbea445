"""B12: delay from a cancellation to its credit and its two emails, without beat.

All worker groups run and no beat, so only the commits' wake-ups help.  The p99 from the cancellation to the
last of ledger line and two sent notices is compared with the p99 of the answers to the same commands (B11).
"""

from __future__ import annotations

from benchmarks import latency, queue_load
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from benchmarks.workloads import Workloads, cancellation_workloads
from workers.local.process_specs import WORKER_GROUPS

FOLLOWED = """
    SELECT (SELECT count(*) FROM unwind.ledger_lines WHERE order_id = {order} AND kind IN ('reset', 'credit'))
        + (SELECT count(*) FROM unwind.notices WHERE order_id = {order} AND event = 'order_cancelled'
            AND state = 'sent')
"""
LAG = """
    SELECT extract(epoch FROM greatest(
        (SELECT max(at) FROM unwind.ledger_lines WHERE order_id = o.order_id AND kind IN ('reset', 'credit')),
        (SELECT max(sent_at) FROM unwind.notices WHERE order_id = o.order_id AND event = 'order_cancelled')
        ) - o.cancelled_at)::float8
    FROM unwind.orders o WHERE o.order_id BETWEEN {first} AND {last}
"""


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    calls = scale.of(20, 120)
    step("making a market")
    lags: list[float] = []
    answers: list[float] = []
    with (
        cancellation_workloads(environment, calls * (scale.pairs + 1), groups=tuple(WORKER_GROUPS)) as workloads,
        latency.caller(environment, workloads.broker) as client,
    ):

        def run_round() -> float:
            first = workloads.slices.next
            spent = latency.ours(workloads, client, calls, lambda order_id: _followed(workloads, order_id))
            rows = workloads.conn.execute(LAG.format(first=first, last=first + calls - 1)).fetchall()
            check_equal("orders whose consequences are there", len([1 for (lag,) in rows if lag is not None]), calls)
            lags.append(latency.percentile([lag for (lag,) in rows], 0.99))
            answers.append(latency.percentile(spent, 0.99))
            return 0.0

        step("warming up")
        run_round()
        lags.clear()
        answers.clear()
        alternate(scale.pairs, with_progress(step, "cancel, and what follows", run_round))
    bar = Bar(5, 3, at_least=False)
    return [result("B12", "credit posted and mails handed over, p99 / p99 of the answer", "ms", bar, lags, answers)]


def _followed(workloads: Workloads, order_id: int) -> None:
    """Wait for the ledger line and both emails; polls rarely, to add no load."""
    wait_until(
        lambda: queue_load.value(workloads.conn, FOLLOWED.format(order=order_id)) == 3, latency.TIMEOUT, every=0.03
    )


BENCH = Bench("B12", "what follows a cancellation, by nudges", lambda s: 2 + s.pairs, {"quick": 14, "normal": 120}, run)
