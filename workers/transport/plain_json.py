"""JSON in messages is plain: what kombu's serializer writes for a UUID, a Decimal or a datetime stays the object that it is.

kombu reads `{"__type__": "uuid", …}` back into Python's own types.  Such a value would be another one at the message interface
than at the SQL interface, and neither PostgreSQL nor a retry can hold all of them.  Without the reading, each interface sees the
same object, and answers `invalid` (docs/decisions/0014-plain-json.md).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kombu.serialization import register
from kombu.utils import json

loads: Any = partial(json.loads, object_hook=None)


def use_plain_json() -> None:
    """From now on this process revives no typed JSON; what it writes is as it was."""
    register("json", json.dumps, loads, content_type="application/json", content_encoding="utf-8")  # type: ignore[no-untyped-call]
