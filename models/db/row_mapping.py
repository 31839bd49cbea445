"""Rows as the dataclasses of policies, and back, by columns and fields of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import date, datetime
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_type_hints

from policies import copies
from policies.timestamps import format_timestamp

T = TypeVar("T")


def from_row(kind: type[T], row: Any, **given: Any) -> T:
    """Return a `kind` with the row's values, except for the fields that are `given`; codes become its enums."""
    names, read, enums = _reader(kind, tuple(given))  # type: ignore[arg-type]  # a class is hashable
    values = dict(zip(names, read(row), strict=True), **given)
    for name, members in enums:
        if values[name] is not None:
            values[name] = members[values[name]]
    return copies.build(kind, values)


def to_row(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(names, _getter(names)(value), strict=True))


def to_columns(
    values: Iterable[Any], names: tuple[str, ...], getter: Callable[..., Callable[[Any], Any]] = attrgetter
) -> dict[str, tuple[Any, ...]]:
    """Return the attributes of the values by name; of mappings with `itemgetter`. There must be two names at least."""
    return dict(zip(names, zip(*map(getter(*names), values), strict=True), strict=True))


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
def _reader(kind: Any, given: tuple[str, ...]) -> tuple[list[str], Callable[[Any], Any], list[tuple[str, Any]]]:
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name not in given]
    annotations = [(name, hint) for name in names for hint in (types[name], *get_args(types[name]))]
    enums = [
        (name, {member.value: member for member in hint})
        for name, hint in annotations
        if isinstance(hint, type) and issubclass(hint, Enum)
    ]
    return names, attrgetter(*names), enums
