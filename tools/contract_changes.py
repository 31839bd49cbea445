"""May a contract file be replaced by its new form, or would somebody outside break?

What comes in may only be asked for more loosely, what goes out may only say more: so a change is judged by its direction.
Whoever has to break the contract says so (`./run docs --breaking`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_UPPER = ("maxLength", "maximum", "maxItems", "maxProperties")
_OF_TEXTS = ("pattern", "format", "maxLength")
"""Bounds that narrow nothing for senders whose value could not be a text before."""
_LOWER = ("minLength", "minimum", "minItems", "minProperties")


def breaks_senders(old: Schema, new: Schema) -> list[str]:
    """Why a message that fitted the old argument schema may not fit the new one; empty when every one still does."""
    return list(_narrowed(_whole(old), _whole(new), ""))


def breaks_readers(old: Schema, new: Schema) -> list[str]:
    """Why a reader made for the old answer schema may not understand the new answers; empty when all do.

    New fields and new words (codes) are additions, which readers must expect; what went away or changed its type is not.
    """
    return list(_widened(_whole(old), _whole(new), ""))


def _narrowed(old: Schema, new: Schema, path: str) -> Iterator[str]:
    here = path or "the arguments"
    old_kinds, new_kinds = _kinds(old), _kinds(new)
    if new_kinds is not None and (old_kinds is None or not old_kinds <= new_kinds):
        gone = sorted((old_kinds or {"anything"}) - new_kinds)
        yield f"{here}: {', '.join(gone)} was allowed"
        return
    if _words(new) is not None and not _subset(_words(old), _words(new)):
        yield f"{here}: a word was taken away"
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
            yield f"{_join(path, name)}: was taken away"


def _bounds(old: Schema, new: Schema, here: str) -> Iterator[str]:
    kinds = _kinds(old)
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
            yield f"{here}: {name} is another"


def _widened(old: Schema, new: Schema, path: str) -> Iterator[str]:
    here = path or "the answer"
    old_kinds, new_kinds = _kinds(old), _kinds(new)
    if old_kinds is not None and (new_kinds is None or not new_kinds <= old_kinds):
        yield f"{here}: may be {', '.join(sorted((new_kinds or {'anything'}) - old_kinds))} now"
        return
    if _words(old) is not None and not _subset(_words(old), _words(new)):
        yield f"{here}: a word went away"
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        yield f"{_join(path, name)}: may be missing now"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, part in before.items():
        if name in after:
            yield from _widened(part, after[name], _join(path, name))
        else:
            yield f"{_join(path, name)}: was taken away"
    if "items" in old:
        yield from _widened(old["items"], new.get("items", {}), _join(path, "items"))


def _whole(schema: Schema) -> dict[str, Any]:
    """The schema with its own definitions put in place, and `X or null` written as one schema with two types."""
    whole: dict[str, Any] = _filled(schema, schema.get("$defs", {}))
    return whole


def _filled(part: Any, definitions: Schema) -> Any:
    if isinstance(part, list):
        return [_filled(one, definitions) for one in part]
    if not isinstance(part, Mapping):
        return part
    found = str(part.get("$ref", ""))
    if found.startswith("#/$defs/"):
        return _filled(definitions[found.removeprefix("#/$defs/")], definitions)
    filled = {name: _filled(value, definitions) for name, value in part.items() if name != "$defs"}
    choices = filled.get("anyOf", [])
    others = [one for one in choices if one != {"type": "null"}]
    if choices and len(others) == 1 and len(choices) == 2:
        single = filled | others[0]
        del single["anyOf"]
        kinds = _kinds(others[0])
        if kinds is not None:
            single["type"] = sorted(kinds | {"null"})
        if "enum" in single:
            single["enum"] = [*single["enum"], None]
        return single
    return filled


def _kinds(schema: Schema) -> set[str] | None:
    """The JSON types that fit; None for any.  Whole numbers are numbers, and say so."""
    said = schema.get("type")
    if said is None:
        return None
    kinds = {said} if isinstance(said, str) else set(said)
    return kinds | {"integer"} if "number" in kinds else kinds


def _words(schema: Schema) -> list[Any] | None:
    return schema.get("enum")


def _subset(few: list[Any] | None, many: list[Any] | None) -> bool:
    return many is None or (few is not None and all(one in many for one in few))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
