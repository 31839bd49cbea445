"""Which tables are there?  Importing this module makes `metadata` whole, for migrations and for checks against drift."""

from __future__ import annotations

import importlib
import pkgutil

import models
from models.db.schema import metadata

for _module in pkgutil.iter_modules(models.__path__):
    if _module.name not in ("migrations", "tables"):
        importlib.import_module(f"models.{_module.name}")

__all__ = ["metadata"]
