"""Limits on the size of a command's arguments at every interface, and the parsing of the arguments.

Parsed JSON needs many times its length in memory (64 bytes for `[]`), so the parts of a text are counted before it is
parsed. PostgreSQL does the same for the SQL interface (`models/sql/submit_command.sql`).
"""

from __future__ import annotations

import json
from typing import Any

MAX_PAYLOAD_BYTES = 16 * 2**20
"""A thousand items with two thousand escaped characters each need about this much."""
MAX_PAYLOAD_PARTS = 50_000
"""Brackets, braces and commas outside strings.  The largest command, a thousand full lines, has half of that."""
MAX_PAYLOAD_DEPTH = 20
"""Levels of lists and objects.  Valid arguments have at most six; deeper ones are answered `invalid`."""


class InvalidPayload(ValueError):
    pass


def has_too_many_parts(raw: bytes) -> bool:
    """Return whether parsing this JSON would make more than `MAX_PAYLOAD_PARTS` values, using memory of its own length.

    Counting decides most texts.  Otherwise strings are removed first: without escaped backslashes and quotes, every
    second piece between two quotes is outside a string.
    """
    if _count_payload_punctuation(raw) <= MAX_PAYLOAD_PARTS:
        return False
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * (MAX_PAYLOAD_PARTS + 1):  # a part has a key and a text at most
        return True
    return _count_payload_punctuation(b"".join(bare.split(b'"')[::2])) > MAX_PAYLOAD_PARTS


def _count_payload_punctuation(raw: bytes) -> int:
    return sum(map(raw.count, (b",", b"[", b"]", b"{", b"}")))


class DuplicatePayloadName(ValueError):
    pass


def refuse_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise DuplicatePayloadName("has a name twice in one object")
    return fields


def exceeds_payload_depth(value: Any, levels: int) -> bool:
    # Iterative, so that deep input can't overflow the stack.
    containers = [value]
    while containers and levels:
        levels -= 1
        containers = [
            child
            for container in containers
            if isinstance(container, dict | list)
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return bool(containers)


def parse_payload(payload: str) -> dict[str, Any]:
    """Parse the arguments in a text.  Raises `InvalidPayload`, whose message repeats nothing of the text."""
    try:
        document = json.loads(payload)
    except RecursionError:
        raise InvalidPayload("is nested too deeply") from None
    except ValueError:  # not JSON, or an integer of more digits than Python converts
        raise InvalidPayload("cannot be read as JSON, or has a number of too many digits") from None
    if not isinstance(document, dict):
        raise InvalidPayload("must be an object")
    return document
