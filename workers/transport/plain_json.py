"""A JSON serializer that does not revive kombu's typed objects (UUID, Decimal, datetime).

kombu reads `{"__type__": "uuid", …}` back into Python's own types.  Such a value would differ between the message
interface and the SQL interface, and neither PostgreSQL nor a retry can hold all of them.  Without reviving, both
interfaces see the same object and answer `invalid` (docs/decisions/0014-plain-json.md).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.serialization import register
from kombu.utils import json


def use_plain_json() -> None:
    loads: Any = partial(json.loads, object_hook=None)
    register("json", json.dumps, loads, "application/json", "utf-8")  # type: ignore[no-untyped-call]


def holds_typed_object(value: Any) -> bool:
    """Whether kombu would revive something in a value of at most `MAX_PAYLOAD_DEPTH` levels."""
    if isinstance(value, dict):
        return "__type__" in value or any(map(holds_typed_object, value.values()))
    return isinstance(value, list) and any(map(holds_typed_object, value))
