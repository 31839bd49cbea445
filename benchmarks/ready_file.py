"""How does a reference on plain Celery say that it waits for work?  By the file that the supervisor looks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals


@signals.worker_ready.connect
def announce(**_: Any) -> None:
    """The worker takes messages from now on."""
    if path := os.environ.get("UNWIND_READY_FILE"):
        Path(path).touch()
