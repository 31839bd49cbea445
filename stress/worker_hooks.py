"""Hooks in the workers of a torture run, loaded by `celery worker -I stress.worker_hooks` only.

They make messages of a dead worker return within seconds instead of minutes, so that a stopped worker can outlast
that too, and append every answer to a file.  They can also apply one mistake of `stress.mutants`.
"""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

from celery import signals

from workers.app import app

SETTINGS = "TORTURE_INSIDE"
"""The variable that holds {effects: file, visibility: seconds, mutant: name} as JSON."""

_settings: dict[str, Any] = json.loads(os.environ.get(SETTINGS, "{}"))


def set_up() -> None:
    if _settings.get("visibility"):
        app.conf.broker_transport_options |= {
            "visibility_timeout": _settings["visibility"],
            "unacked_restore_interval": 1,
            "unacked_mutex_expire": 5,
        }
    if _settings.get("mutant"):
        mutants = importlib.import_module("stress.mutants").MUTANTS
        # Kept: a garbage-collected context would undo its change.
        _settings["context"] = mutants[_settings["mutant"]].activate("")
        _settings["context"].__enter__()


@signals.task_postrun.connect
def _note(task: Any = None, task_id: str | None = None, retval: Any = None, **_: Any) -> None:
    if not _settings.get("effects") or not isinstance(retval, dict) or "request_id" not in retval:
        return
    line = json.dumps([task.name, retval["request_id"], retval["outcome"], bool(retval["replayed"])])
    descriptor = os.open(_settings["effects"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


set_up()
