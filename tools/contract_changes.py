"""Detection of breaking changes in contract files.

Input schemas may only become more permissive, output schemas may only gain fields and codes. `./run docs --breaking`
writes a breaking change anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_UPPER = ("maxLength", "maximum", "maxItems", "maxProperties")
_OF_TEXTS = ("pattern", "format", "maxLength")
"""Bounds that do not restrict senders whose value could not be a string before."""
_LOWER = ("minLength", "minimum", "minItems", "minProperties")


def breaks_senders(old: Schema, new: Schema) -> list[str]:
    """Reasons why a message valid under the old argument schema may be invalid under the new one."""
    return list(_narrowed(_expand(old), _expand(new), ""))


def breaks_readers(old: Schema, new: Schema) -> list[str]:
    """Reasons why a reader of the old answer schema may fail on new answers.

    Readers must expect new fields and codes, but not removed ones or changed types.
    """
    return list(_widened(_expand(old), _expand(new), ""))


def _narrowed(old: Schema, new: Schema, path: str) -> Iterator[str]:
    here = path or "the arguments"
    old_types, new_types = _types(old), _types(new)
    if new_types is not None and (old_types is None or not old_types <= new_types):
        gone = sorted((old_types or {"anything"}) - new_types)
        yield f"{here}: {', '.join(gone)} was allowed"
        return
    if _codes(new) is not None and not _subset(_codes(old), _codes(new)):
        yield f"{here}: a code was removed"
    yield from _bounds(old, new, here)
    yield from _fields_narrowed(old, new, path)
    for word in ("items", "propertyNames"):
        if word in new:
            yield from _narrowed(old.get(word, {}), new[word], _join(path, word))
    if new.get("oneOf") not in (None, old.get("oneOf")):
        yield f"{here}: the conditions changed"


def _fields_narrowed(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{_join(path, name)}: became required"
    after = new.get("properties", {})
    open_now = new.get("additionalProperties", True) is not False
    if old.get("additionalProperties", True) is not False and not open_now:
        yield f"{path or 'the arguments'}: other fields were allowed"
    for name, part in old.get("properties", {}).items():
        if name in after:
            yield from _narrowed(part, after[name], _join(path, name))
        elif not open_now:
            yield f"{_join(path, name)}: was removed"


def _bounds(old: Schema, new: Schema, here: str) -> Iterator[str]:
    kinds = _types(old)
    texts_are_new = kinds is not None and "string" not in kinds
    for name in _UPPER:
        if texts_are_new and name in _OF_TEXTS:
            continue
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{here}: {name} became {new[name]}"
    for name in _LOWER:
        if name in new and new[name] > old.get(name, 0 if name != "minimum" else float("-inf")):
            yield f"{here}: {name} became {new[name]}"
    for name in ("pattern", "format", "const", "$ref"):
        if texts_are_new and name in _OF_TEXTS:
            continue
        if name in new and new[name] != old.get(name):
            yield f"{here}: {name} changed"


def _widened(old: Schema, new: Schema, path: str) -> Iterator[str]:
    here = path or "the answer"
    old_types, new_types = _types(old), _types(new)
    if old_types is not None and (new_types is None or not new_types <= old_types):
        yield f"{here}: may be {', '.join(sorted((new_types or {'anything'}) - old_types))} now"
        return
    if _codes(old) is not None and not _subset(_codes(old), _codes(new)):
        yield f"{here}: a code was removed"
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        yield f"{_join(path, name)}: may be missing now"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, part in before.items():
        if name in after:
            yield from _widened(part, after[name], _join(path, name))
        else:
            yield f"{_join(path, name)}: was removed"
    if "items" in old:
        yield from _widened(old["items"], new.get("items", {}), _join(path, "items"))


def _expand(schema: Schema) -> dict[str, Any]:
    """The schema with `$defs` inlined, and `X or null` written as one schema with two types."""
    expanded: dict[str, Any] = _inline(schema, schema.get("$defs", {}))
    return expanded


def _inline(part: Any, definitions: Schema) -> Any:
    if isinstance(part, list):
        return [_inline(item, definitions) for item in part]
    if not isinstance(part, Mapping):
        return part
    reference = str(part.get("$ref", ""))
    if reference.startswith("#/$defs/"):
        return _inline(definitions[reference.removeprefix("#/$defs/")], definitions)
    filled = {name: _inline(value, definitions) for name, value in part.items() if name != "$defs"}
    choices = filled.get("anyOf", [])
    others = [choice for choice in choices if choice != {"type": "null"}]
    if choices and len(others) == 1 and len(choices) == 2:
        single = filled | others[0]
        del single["anyOf"]
        kinds = _types(others[0])
        if kinds is not None:
            single["type"] = sorted(kinds | {"null"})
        if "enum" in single:
            single["enum"] = [*single["enum"], None]
        return single
    return filled


def _types(schema: Schema) -> set[str] | None:
    """The JSON types that are allowed; None for any. `number` includes `integer`."""
    declared = schema.get("type")
    if declared is None:
        return None
    types = {declared} if isinstance(declared, str) else set(declared)
    return types | {"integer"} if "number" in types else types


def _codes(schema: Schema) -> list[Any] | None:
    return schema.get("enum")


def _subset(values: list[Any] | None, allowed: list[Any] | None) -> bool:
    return allowed is None or (values is not None and all(value in allowed for value in values))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
