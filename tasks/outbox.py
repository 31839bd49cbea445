"""The relay: it claims outbox rows that were not done in time, and publishes their ids to the tasks that consume them.

Usually the commit's wake-up suffices. A claim postpones the row's next publication, so that a message lost between the
commit and the broker is published again. The relay also detects a broker that lost its data, and requeues what was
published to it, and a database whose clock was set back, so that waits keep their length (`models.clock_steps`).
"""

from __future__ import annotations

import structlog
from celery import shared_task

from models import clock_steps, outbox, sweeps
from models.unit_of_work import unit_of_work
from tasks.process_services import services
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

BATCH_SIZE = 1000
"""Rows of each task that one short transaction publishes."""
MAX_BATCHES = 10
"""Rows left after so many wait for the next tick; the queues are full by then."""


@shared_task(name=outbox.RELAY)
def relay() -> TaskResult:
    """Publish every due outbox row. Return how many rows were published."""
    published, publisher = 0, services.publisher
    epoch = publisher.broker_epoch() if publisher else None
    for batch in range(MAX_BATCHES):
        with unit_of_work() as work:
            if batch == 0 and (step := clock_steps.shift_waits(work.conn, outbox.RELAY, work.now)) is not None:
                log.warning("database_clock_set_back", seconds=round(step.total_seconds()))
                sweeps.record_sweep_run(work.conn, outbox.RELAY, 0, work.now)
            if epoch is not None:
                requeued, epoch = outbox.requeue_after_broker_reset(work.conn, epoch, work.now), None
                if requeued:
                    log.warning("broker_lost_messages", rows=requeued)
            rows_by_task = outbox.claim_for_publish(work.conn, work.now, limit=BATCH_SIZE)
            published += sum(len(rows) for rows in rows_by_task.values())
            is_last = all(len(rows) < BATCH_SIZE for rows in rows_by_task.values())
            if is_last:
                sweeps.record_sweep_run(work.conn, outbox.RELAY, published, work.now)
        for task, rows in rows_by_task.items():
            for start in range(0, len(rows), outbox.MAX_CLAIMED_ROWS):
                if publisher:
                    publisher.publish(task, rows[start : start + outbox.MAX_CLAIMED_ROWS])
        if is_last:
            break
    return {"published": published}
