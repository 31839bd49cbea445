"""How does what a commit promised reach those who keep it?  The relay takes what is to ring, commits, and rings.

Taking a row puts off its next ring in the database, so a ring lost between that commit and the broker comes again by
itself, and a thousand nudges ring each row once (reliability F21, X6).  A broker that has forgotten what it was told (emptied,
started without its data) is found out here, and everything that was rung for in vain is rung for again (F10).  So is a database
whose clock was set back: waits keep their length (`models.clock_steps`).
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import shared_task

from models import clock_steps, outbox, sweeps
from models.unit_of_work import UnitOfWork, unit_of_work
from tasks import publisher
from tasks.sweeps import TaskResult

log = structlog.get_logger(__name__)

TASK = "outbox.relay"
BATCH_SIZE = 1000
MAX_BATCHES = 10
"""A pass is one short transaction.  What is left after ten waits for the next tick: the queues are full by then."""
MAX_ROWS_PER_MESSAGE = 500
"""Rows of one message; the follower keeps them in one transaction."""


@shared_task(name=TASK)
def relay() -> TaskResult:
    """Ring for every promise whose time to ring has come; gives how many rows were rung for."""
    rung, memory = 0, publisher.current_publisher().broker_epoch()
    for number in range(MAX_BATCHES):
        work: UnitOfWork[Any]
        with unit_of_work() as work:
            if number == 0 and (step := clock_steps.shift_waits(work.conn, TASK, work.now)) is not None:
                log.warning("the database's clock was set back", seconds=round(step.total_seconds()))
                sweeps.record_run(work.conn, TASK, 0, work.now)
            if memory is not None:
                forgotten, memory = outbox.requeue_after_broker_reset(work.conn, memory, work.now), None
                if forgotten:
                    log.warning("the broker has forgotten what it was told", rows=forgotten)
            ringing = outbox.claim_for_publish(work.conn, work.now, limit=BATCH_SIZE)
            taken = sum(len(rows) for rows in ringing.values())
            rung += taken
            if taken < BATCH_SIZE:
                sweeps.record_run(work.conn, TASK, rung, work.now)
        for task, rows in ringing.items():
            for start in range(0, len(rows), MAX_ROWS_PER_MESSAGE):
                publisher.current_publisher().publish(task, rows[start : start + MAX_ROWS_PER_MESSAGE])
        if taken < BATCH_SIZE:
            break
    return {"rung": rung}
