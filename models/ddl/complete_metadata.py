"""The complete schema: Alembic's `metadata` with every table, and the DDL of all modules, which this one imports."""

from __future__ import annotations

import importlib
import pkgutil

import models
from models.db.schema import metadata
from models.ddl.triggers import TRIGGERS

_MODULES_WITH_TABLES = [
    importlib.import_module(name)
    for name in sorted(module.name for module in pkgutil.walk_packages(models.__path__, "models."))
    if name != __name__ and not name.startswith("models.migrations")
]


def ddl_statements() -> tuple[str, ...]:
    return (*(statement for module in _MODULES_WITH_TABLES for statement in getattr(module, "DDL", ())), *TRIGGERS)


__all__ = ["ddl_statements", "metadata"]
