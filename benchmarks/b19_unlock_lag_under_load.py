"""B19: the delay of B13 while emails wait and single cancellations are queued.

The alerts fall due in a market whose other orders are being cancelled, one per message, and whose outbox holds emails
for a mail server. Beat and all worker groups run as in production; the p99 counts.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys

from benchmarks import latency, queue_load
from benchmarks.b13_unlock_lag import LAGS, RECORDED, SPREAD
from benchmarks.b18_emails import OUTBOX_MESSAGES, running_process
from benchmarks.environment import Environment, wait_until
from benchmarks.harness import Bar, Bench, Result, Scale, Step, check_equal, result
from benchmarks.market import BLOCK, Market
from benchmarks.workloads import shuffled_order_ids
from workers.local.process_specs import WORKER_GROUPS, beat_program

DATABASE = "lag_under_load"
UNLOCK = """
    UPDATE unwind.alerts SET unlocks_at = clock_timestamp() - interval '1 hour',
        unlocked_at = clock_timestamp() - interval '1 hour'
    WHERE order_id > {falling} AND order_id <= {last}
"""


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    waiting, falling, seconds = scale.of(20_000, 1_000_000), scale.of(100, 1_000), scale.of(6, 60)
    cancellations, emails = scale.of(200, 10_000), scale.of(300, 20_000)
    step(f"making {waiting:,} open alerts")
    environment.template("waiting", Market(waiting, lines=0, state="waiting"))
    environment.copy("waiting", DATABASE)
    step("starting workers, beat and a mail server")
    with (
        environment.connect(DATABASE) as conn,
        running_process([sys.executable, "-m", "benchmarks.smtp_server"]) as server,
    ):
        settings = environment.settings(DATABASE, smtp_url=f"smtp://127.0.0.1:{_port(server)}")
        market = Market(waiting, lines=0)
        first = falling + 1
        last = falling + cancellations
        conn.execute(UNLOCK.format(falling=falling, last=last))
        jobs = [
            (f"one.{order_id}", {"order_id": order_id, "member_id": f"s-{(order_id - 1) // BLOCK % market.sellers}"})
            for order_id in shuffled_order_ids(first, last)
        ]
        queue_load.publish(environment, "commands", "orders.cancel", jobs)
        beat = beat_program(settings)
        with environment.programs(environment.workers(settings, *WORKER_GROUPS)), contextlib.ExitStack() as stack:
            queue_load.move_to_queue(environment, "commands", 0)  # before a tick is in the queue
            conn.execute(OUTBOX_MESSAGES, {"run": 1, "count": emails})
            stack.enter_context(environment.programs([beat]))
            conn.execute(SPREAD.format(seconds=seconds, falling=falling))
            step(f"{falling:,} fall due in {seconds} s")
            wait_until(lambda: conn.execute(RECORDED).fetchone() == (falling,), seconds + 120, every=1.0)
            lags = [lag for (lag,) in conn.execute(LAGS)]
            step("the rest of the load")
            left, _ = queue_load.cancelled(first, last)
            wait_until(lambda: queue_load.value(conn, left) == 0, queue_load.MAX_DURATION, every=1.0)
    environment.drop(DATABASE)
    check_equal("notices", len(lags), falling)
    p99 = latency.percentile(lags, 0.99) / 1000
    notes = [f"median {statistics.median(lags):.2f} s, longest {max(lags):.2f} s"]
    bar = Bar(1.5, 1.1, at_least=False, unit=" s")
    what = f"B13 while {emails:,} emails wait and {cancellations:,} single cancellations are queued"
    return [result("B19", what, "s", bar, [p99], [], [p99], notes=notes)]


def _port(server: subprocess.Popen[str]) -> int:
    assert server.stdout is not None
    return int(server.stdout.readline())


BENCH = Bench("B19", "unlock lag under load", lambda _: 4, {"quick": 25, "normal": 180}, run)
