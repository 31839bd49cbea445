"""B22: throughput of `orders.cancel` by HTTP with fifty clients that wait for their answers, against the SQL interface.

The clients are threads of one process with a connection each; the SQL interface is that of B5, whose clients do not
wait. One worker, one HTTP process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks import b05_sql_interface, reference_writes
from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.workloads import Workloads, cancellation_workloads, shuffled_order_ids
from models import api_keys
from models.db import database as db
from workers.local.process_specs import web_program

CLIENTS = 50


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    size = scale.of(500, 3_000)
    step("making a market")
    with (
        cancellation_workloads(environment, 2 * size * (scale.pairs + 1), ours=1) as workloads,
        http_interface(environment, workloads) as (url, key),
    ):
        step("warming up")
        cancel_by_http(workloads, url, key, size)
        ratios = alternate(
            scale.pairs,
            with_progress(step, "HTTP", lambda: cancel_by_http(workloads, url, key, size)),
            with_progress(step, "SQL interface", lambda: b05_sql_interface.submit_by_sql(workloads, size)),
        )
    what = f"HTTP, {CLIENTS} clients that wait / SQL interface"
    return [result("B22", what, "orders/s", Bar(0.5, 0.7), *ratios)]


@contextlib.contextmanager
def http_interface(environment: Environment, workloads: Workloads) -> Iterator[tuple[str, str]]:
    database = db.connect(environment.url(workloads.database))
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    with database.transaction() as conn:
        api_keys.insert_key(conn, "bench", "submit", key_id, secret, database.clock.now(conn))
    database.dispose()
    settings = environment.settings(workloads.database, broker=workloads.broker)
    program, url = web_program(settings)
    with environment.programs([program]):
        yield url, f"{key_id}.{secret}"


def cancel_by_http(workloads: Workloads, url: str, key: str, count: int) -> float:
    """Orders per second, from the first request to the last answer."""
    first, last = workloads.slices.take(count)
    order_ids = shuffled_order_ids(first, last)
    shares = [order_ids[n::CLIENTS] for n in range(CLIENTS)]
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        done = sum(threads.map(lambda share: _cancel(workloads, url, key, share), shares))
    spent = time.perf_counter() - began
    if done != count:
        raise RuntimeError(f"{done} of {count} answers are `done`")
    reference_writes.check(workloads.conn, first, last, workloads.market.lines)
    return count / spent


def _cancel(workloads: Workloads, url: str, key: str, order_ids: Sequence[int]) -> int:
    address = urlsplit(url)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "wait=60"}
    done = 0
    with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)) as connection:
        for order_id in order_ids:
            body = json.dumps(workloads.order(order_id)).encode()
            connection.request(
                "POST", "/v1/commands/orders.cancel", body, headers | {"Idempotency-Key": f"http:{order_id}"}
            )
            done += json.loads(connection.getresponse().read())["outcome"] == "done"
    return done


BENCH = Bench("B22", "HTTP against the SQL interface", lambda s: 2 + 2 * s.pairs, {"quick": 14, "normal": 60}, run)
