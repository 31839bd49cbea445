"""What is the Celery application, and why is each of its settings as it is?"""

from __future__ import annotations

import importlib
import pkgutil

from celery import Celery

import tasks

app = Celery("unwind", task_cls="workers.job:Job")
app.set_default()
for _module in pkgutil.iter_modules(tasks.__path__):
    importlib.import_module(f"tasks.{_module.name}")
app.finalize()
