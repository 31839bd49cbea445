"""The dramatiq reference: one job per order.

Two processes with dramatiq's default of eight threads, a connection per thread, results off.  One actor runs the body
of the product's `orders.cancel` for one order, the other calls the SQL function of the pgbench reference.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import dramatiq
import psycopg
from dramatiq.brokers.redis import RedisBroker

from models.db import database as db
from workers.app import app

QUEUE = "peer"
THREADS = 8
_thread_local = threading.local()


class Ready(dramatiq.Middleware):
    def after_process_boot(self, broker: Any) -> None:  # noqa: ARG002 - dramatiq gives it
        db.set_database(db.connect(os.environ["PEER_PRODUCT"], pool_size=THREADS))
        Path(os.environ["UNWIND_READY_FILE"]).touch()


def broker(url: str) -> Any:
    redis_broker: Any = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    redis_broker.declare_queue(QUEUE)
    return redis_broker


def publish(url: str, actor: str, jobs: list[dict[str, Any]]) -> None:
    redis_broker = broker(url)
    for arguments in jobs:
        redis_broker.enqueue(
            dramatiq.Message(queue_name=QUEUE, actor_name=actor, args=(), kwargs=arguments, options={})
        )
    redis_broker.close()


if "PEER_BROKER" in os.environ:
    _broker = broker(os.environ["PEER_BROKER"])
    _broker.add_middleware(Ready())
    dramatiq.set_broker(_broker)

    @dramatiq.actor(queue_name=QUEUE, actor_name="product")
    def product(order_id: int, member_id: str, request_id: str) -> None:
        task = app.tasks["orders.cancel"]
        task.validate_and_run({"order_id": order_id, "member_id": member_id, "request_id": request_id}, request_id)

    @dramatiq.actor(queue_name=QUEUE, actor_name="function")
    def function(order_id: int) -> None:
        if not hasattr(_thread_local, "conn"):
            _thread_local.conn = psycopg.connect(os.environ["PEER_DATABASE"], autocommit=True, prepare_threshold=0)
        _thread_local.conn.execute("SELECT bench.cancel_orders(ARRAY[%s::bigint], 'peer')", [order_id])
