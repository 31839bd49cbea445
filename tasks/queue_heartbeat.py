"""The heartbeat task, sent through every queue. It records when it ran, and in which queue.

Its age shows the doctor whether the queue is served. Its message lets the watchdog see whether a worker still takes
messages.
"""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from models.sweeps import record_sweep_run
from models.unit_of_work import unit_of_work
from tasks.sweeps import TaskResult


def heartbeat_run(queue: str) -> str:
    return f"heartbeat.{queue}"


@shared_task(name="queues.heartbeat", bind=True)
def heartbeat(self: Task[Any, Any]) -> TaskResult:
    delivery_info: dict[str, Any] = self.request.delivery_info or {}
    with unit_of_work() as work:
        record_sweep_run(work.conn, heartbeat_run(str(delivery_info.get("routing_key"))), 0, work.now)
    return {}
