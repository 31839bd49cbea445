"""One heartbeat task per queue. Each records when it ran.

Its age shows the doctor whether the queue is served. Its message gives the watchdog something that a stuck worker fails
to take.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task

from models.sweeps import record_run
from models.unit_of_work import UnitOfWork, unit_of_work
from tasks.sweeps import TaskResult


@shared_task(name="canary.commands")
def commands() -> TaskResult:
    return _record("canary.commands")


@shared_task(name="canary.submissions")
def submissions() -> TaskResult:
    return _record("canary.submissions")


@shared_task(name="canary.consequences")
def consequences() -> TaskResult:
    return _record("canary.consequences")


@shared_task(name="canary.notices")
def notices() -> TaskResult:
    return _record("canary.notices")


@shared_task(name="canary.sweeps")
def sweeps() -> TaskResult:
    return _record("canary.sweeps")


def _record(task: str) -> TaskResult:
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        record_run(work.conn, task, 0, work.now)
    return {}
