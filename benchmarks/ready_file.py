"""Readiness of reference workers on plain Celery: creates the file that the supervisor waits for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals


@signals.worker_ready.connect
def announce(**_: Any) -> None:
    if path := os.environ.get("UNWIND_READY_FILE"):
        Path(path).touch()
