"""B10: publishing outbox rows through the relay against bare `send_task`.

The relay claims and postpones rows in PostgreSQL and publishes many in one message; `send_task` sends one message each,
through the same connection of the same process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, check_equal, result, with_progress
from workers.settings import CHECKOUT

DATABASE = "relay"
OUTBOX_MESSAGES = """
    INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at)
    SELECT 'bench:' || %(run)s || ':' || g, (ARRAY['notices.tell_seller', 'notices.tell_buyer',
            'credits.post_to_next_invoice'])[1 + g %% 3], g / 3,
        jsonb_build_object('role', 'seller', 'event', 'order_cancelled', 'recipient', 's-' || g, 'facts',
            jsonb_build_object(
            'by', 'seller', 'basis', 'NPB', 'strike', true, 'returns', true, 'lines_returned', 5, 'units_returned',
                10)),
        clock_timestamp(), clock_timestamp()
    FROM generate_series(1, %(count)s) g
"""
FOLLOWED = ("notices", "consequences")


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    rows, messages = scale.of(2_000, 30_000), scale.of(300, 3_000)
    step("starting a wired process")
    environment.create(DATABASE)
    settings = environment.settings(DATABASE)
    variables = {**os.environ, **settings.environment(), "PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-m", "benchmarks.relay_client"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:
        try:
            check_equal("the process says", _line(process), "ready")
            runs = iter(range(1_000))
            ratios = alternate(
                scale.pairs,
                with_progress(step, "outbox.relay", lambda: publish_rate(environment, process, next(runs), rows)),
                with_progress(step, "send_task", lambda: send_rate(environment, process, messages)),
            )
        finally:
            process.kill()
    environment.drop(DATABASE)
    return [result("B10", "outbox rows handed over / bare send_task", "per s", Bar(1.5, 5), *ratios)]


def publish_rate(environment: Environment, process: subprocess.Popen[str], number: int, count: int) -> float:
    """Return rows per second; checks that each row was published once, in exactly one message."""
    with environment.connect(DATABASE) as conn:
        conn.execute(OUTBOX_MESSAGES, {"run": number, "count": count})
        spent = _do(process, "relay", count)
        left = conn.execute(
            "SELECT count(*), count(*) FILTER (WHERE publish_count = 1), sum(outbox_id) FROM unwind.outbox"
        ).fetchone()
        conn.execute("TRUNCATE unwind.outbox")
    assert left is not None
    check_equal("rows published once", tuple(left[:2]), (count, count))
    with contextlib.closing(environment.redis()) as connection:
        bodies = [message for queue in FOLLOWED for message in _messages(connection, queue)]
        connection.flushdb()
    row_ids = [row for body in bodies for row in body[1]["rows"]]
    check_equal("rows named by messages, and their sum", (len(row_ids), sum(row_ids)), (count, left[2]))
    return count / spent


def send_rate(environment: Environment, process: subprocess.Popen[str], count: int) -> float:
    """Return messages per second; checks that all are in the queue."""
    spent = _do(process, f"send {count}", count)
    with contextlib.closing(environment.redis()) as connection:
        check_equal("messages in the queue", connection.llen("outbox"), count)
        connection.flushdb()
    return count / spent


def _messages(connection: Any, queue: str) -> list[Any]:
    return [json.loads(base64.b64decode(json.loads(raw)["body"])) for raw in connection.lrange(queue, 0, -1)]


def _do(process: subprocess.Popen[str], word: str, count: int) -> float:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    answer = json.loads(_line(process))
    check_equal(f"done by `{word}`", answer["done"], count)
    return float(answer["seconds"])


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


BENCH = Bench("B10", "the relay against bare send_task", lambda s: 1 + 2 * s.pairs, {"quick": 6, "normal": 35}, run)
