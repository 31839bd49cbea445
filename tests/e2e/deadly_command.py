"""The application with commands that end their process, for `celery -A tests.e2e.deadly_command worker`.

`members.record` of the member "deadly" ends its process, and that of "endless" runs until its time limit.
"""

from __future__ import annotations

import os
from threading import Event
from typing import Any

from workers.app import app

__all__ = ["app"]

_task = app.tasks["members.record"]
if limit := os.environ.get("TEST_TIME_LIMIT"):
    app.conf.task_time_limit = _task.time_limit = int(limit)
_run = _task.run


def _deadly_run(commands: list[Any]) -> Any:
    members = {command.member_id for command in commands}
    if "deadly" in members:
        os._exit(3)
    if "endless" in members:
        Event().wait()
    return _run(commands)


_task.run = _deadly_run
