"""Rows as the dataclasses of policies, and back, by columns and fields of the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import date, datetime
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_type_hints

from policies.timestamps import format_timestamp

T = TypeVar("T")


def from_row(kind: Callable[..., T], row: Any, **given: Any) -> T:
    """Return a `kind` with the row's values, except for the fields that are `given`; codes become its enums."""
    read, enums, places = _reader(kind, tuple(given))
    values = list(read(row))
    for place, enum in enums:
        if values[place] is not None:
            values[place] = enum(values[place])
    for place, name in places:
        values.insert(place, given[name])
    return kind(*values)


def to_row(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(names, _getter(names)(value), strict=True))


def map_row_to_json(row: Any) -> dict[str, Any]:
    return {
        name: format_timestamp(value)
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, date)
        else value
        for name, value in row._mapping.items()
    }


_getter = cache(lambda names: attrgetter(*names))


@cache
def _reader(kind: Any, given: tuple[str, ...]) -> tuple[Callable[[Any], Any], list[Any], list[tuple[int, str]]]:
    all_names, types = [field.name for field in fields(kind)], get_type_hints(kind)
    names = [name for name in all_names if name not in given]
    annotations = [(i, hint) for i, name in enumerate(names) for hint in (types[name], *get_args(types[name]))]
    enums = [(i, hint) for i, hint in annotations if isinstance(hint, type) and issubclass(hint, Enum)]
    return attrgetter(*names), enums, [(place, name) for place, name in enumerate(all_names) if name in given]
