"""Alembic's `metadata` with every table: importing this module imports them all."""

from __future__ import annotations

import importlib
import pkgutil

import models
from models.db.schema import metadata

for _module in pkgutil.walk_packages(models.__path__, "models."):
    if _module.name != __name__ and not _module.name.startswith("models.migrations"):
        importlib.import_module(_module.name)

__all__ = ["metadata"]
