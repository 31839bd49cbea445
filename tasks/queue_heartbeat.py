"""Does somebody take what goes through each queue?  A canary flies through it now and then and leaves the instant it landed.

Nothing else happens: its age tells the doctor that a queue is served, and its message gives a worker that takes nothing
something to be found out by (reliability X9).
"""

from __future__ import annotations

from typing import Any

from celery import shared_task

from models import sweeps
from models.unit_of_work import UnitOfWork, unit_of_work
from tasks.sweeps import TaskResult


@shared_task(name="canary.commands")
def commands() -> TaskResult:
    """Land from the queue of commands."""
    return _land("canary.commands")


@shared_task(name="canary.submissions")
def submissions() -> TaskResult:
    """Land from the queue of what came in by SQL."""
    return _land("canary.submissions")


@shared_task(name="canary.consequences")
def consequences() -> TaskResult:
    """Land from the queue of consequences."""
    return _land("canary.consequences")


@shared_task(name="canary.notices")
def notices() -> TaskResult:
    """Land from the queue of notices."""
    return _land("canary.notices")


@shared_task(name="canary.sweeps")
def of_sweeps() -> TaskResult:
    """Land from the queue of sweeps."""
    return _land("canary.sweeps")


def _land(name: str) -> TaskResult:
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        sweeps.record_run(work.conn, name, 0, work.now)
    return {}
