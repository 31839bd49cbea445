"""Copies of frozen dataclasses with some fields changed, at a tenth of the time of `dataclasses.replace`.

A batch makes several copies for each order, and `replace` calls the class with all fields one by one
(docs/decisions/0011). The classes must have a `__dict__`, so no slots, and no `__post_init__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["replace"]
T = TypeVar("T")

if TYPE_CHECKING:  # mypy checks the names and types of the fields
    from dataclasses import replace
else:

    def replace(value: T, /, **changes: Any) -> T:
        copy = object.__new__(type(value))
        copy.__dict__.update(value.__dict__, **changes)
        return copy
