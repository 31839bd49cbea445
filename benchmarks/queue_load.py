"""Loads queues for workers that are already waiting: publish to a staging database, then move everything in one step.

Publishing costs as much time as processing.  With the messages staged, `MOVE` hands over the whole queue at once and
the clock (PostgreSQL's) measures the workers only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import psycopg
from celery import Celery

from benchmarks.environment import Environment, wait_until

STAGING_DATABASE = 12
"""Database of the broker in which messages wait for the start."""
MAX_DURATION = 240.0


def publish(environment: Environment, queue: str, task: str, jobs: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Publish (id, arguments) with plain Celery to the staging database, where no worker reads."""
    client = Celery("upstream", broker=environment.broker(STAGING_DATABASE), set_as_current=False)
    client.conf.task_create_missing_queues = True
    empty_staging(environment)
    with client.connection_for_write() as connection, client.amqp.Producer(connection) as producer:
        for message_id, arguments in jobs:
            client.send_task(task, kwargs=arguments, queue=queue, task_id=message_id, producer=producer)
    client.close()


def empty_staging(environment: Environment) -> None:
    with contextlib.closing(environment.redis(STAGING_DATABASE)) as connection:
        connection.flushdb()


def move_to_queue(environment: Environment, queue: str, broker: int) -> None:
    """Move the staged messages to the queue in one step."""
    with contextlib.closing(environment.redis(STAGING_DATABASE)) as connection:
        if not connection.move(queue, broker):
            raise RuntimeError(f"the queue {queue} was not empty")


def seconds(
    environment: Environment, conn: psycopg.Connection, queue: str, broker: int, left: str, ended: str
) -> float:
    """Move the messages, wait until the query `left` returns 0, return the seconds until the time from `ended`."""
    began = value(conn, "SELECT clock_timestamp()")
    move_to_queue(environment, queue, broker)
    wait_until(lambda: value(conn, left) == 0, MAX_DURATION, every=0.1)
    return float((value(conn, ended) - began).total_seconds())


def value(conn: psycopg.Connection, query: str) -> Any:
    row = conn.execute(query).fetchone()
    return None if row is None else row[0]


def cancelled(first: int, last: int) -> tuple[str, str]:
    """Return two queries: how many orders of the range are not cancelled yet, and the time of the last cancellation."""
    condition = f"FROM unwind.orders WHERE order_id BETWEEN {first} AND {last}"
    return f"SELECT count(*) {condition} AND status <> 'CANCELLED'", f"SELECT max(cancelled_at) {condition}"


def answered(prefix: str, count: int) -> tuple[str, str]:
    condition = (
        "FROM unwind.requests JOIN (SELECT CAST(generate_series AS text) AS number "
        f"FROM generate_series(0, {count - 1})) n ON request_id = '{prefix}' || number"
    )
    return f"SELECT {count} - count(*) {condition}", f"SELECT max(answered_at) {condition}"


class OrderRanges:
    """Hands out ranges of orders so that no two workloads use the same."""

    def __init__(self, orders: int) -> None:
        self.next = 1
        self._orders = orders

    def take(self, count: int) -> tuple[int, int]:
        first = self.next
        self.next += count
        if self.next > self._orders + 1:
            raise RuntimeError(f"a market of {self._orders} orders is too small")
        return first, self.next - 1
