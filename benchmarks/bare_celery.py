"""The bare Celery reference: a task that calls one SQL function.

Plain Celery tuned as its guide recommends for short tasks: prefork, a large prefetch, early acknowledgement, no
events, no gossip; one connection per process, a prepared statement, one round trip per job, the answer in the result
backend.
"""

from __future__ import annotations

import os
from typing import Any

import psycopg
from celery import Celery, signals

import benchmarks.ready_file  # noqa: F401 - connects itself to a signal

app = Celery("bare", broker=os.environ.get("BARE_BROKER"), backend=os.environ.get("BARE_BACKEND"))
app.conf.update(
    task_default_queue="bare",
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    task_ignore_result=False,
    result_expires=3600,
    broker_connection_retry_on_startup=True,
    worker_proc_alive_timeout=30,
)
_held: dict[str, psycopg.Connection] = {}


@signals.worker_process_init.connect
def _connect(**_: Any) -> None:
    _held["conn"] = psycopg.connect(os.environ["BARE_DATABASE"], autocommit=True, prepare_threshold=0)


@app.task(name="bare.cancel")
def cancel(order_id: int) -> dict[str, Any]:
    row = _held["conn"].execute("SELECT bench.cancel_orders(ARRAY[%s::bigint], 'bare')", [order_id]).fetchone()
    return {"outcome": "done" if row is not None and row[0] else "refused", "order_id": order_id}
