"""Hostile messages and payloads, a few of each kind, as anyone with access to the broker could push them."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any


def hostile_message(number: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of a hostile message, by number."""
    kind = list(KINDS)[number % len(KINDS)]
    return kind, KINDS[kind]()


def _envelope(task: str, body: Any, **changed: Any) -> bytes:
    tag = str(uuid.uuid4())
    headers: dict[str, Any] = {
        "lang": "py", "task": task, "id": tag, "root_id": tag, "parent_id": None, "group": None, "retries": 0,
        "eta": None, "expires": None, "timelimit": [None, None], "argsrepr": "()", "kwargsrepr": "{}",
        "origin": "somebody", "ignore_result": False,
    }  # fmt: skip
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers | changed.pop("headers", {}),
        "properties": {
            "correlation_id": tag,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "commands"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message | changed).encode()


def poison_payload(number: int) -> tuple[str, str]:
    """Return the kind and the text of a payload that the consumer must not parse, by number."""
    kind = list(POISON)[number % len(POISON)]
    return kind, POISON[kind]


POISON: dict[str, str] = {
    "digits": '{"order_id": ' + "9" * 5_000 + ', "member_id": "s0"}',
    "exponent": '{"order_id": 1e5000, "member_id": "s0"}',
    "levels": '{"member_id": ' + "[" * 1_500 + "]" * 1_500 + "}",
    "parts": '{"orders": [' + ",".join(["[]"] * 1_000_000) + "]}",
    "length": '{"order_id": 1, "member_id": "s0", "comment": "' + "x" * 12_000_000 + '"}',
}

KINDS: dict[str, Any] = {
    "unknown task": lambda: _envelope("orders.cancel_everything", [[], {}, {}]),
    "wrong types": lambda: _envelope("orders.cancel", [[], {"order_id": "1003", "member_id": 5}, {}]),
    "positional": lambda: _envelope("orders.cancel", [[1003, "s0"], {}, {}]),
    "forged publish": lambda: _envelope("credits.post_to_next_invoice", [[], {"rows": [1, 2, 3, 10**12]}, {}]),
    "huge number": lambda: _envelope("orders.cancel", [[], {"order_id": 10**30, "member_id": "s0"}, {}]),
    "too many parts": lambda: _envelope("orders.cancel_many", [[], {"orders": [[]] * 1_000_000}, {}]),
    "levels": lambda: _envelope("orders.cancel", [[], {"member_id": json.loads("[" * 500 + "]" * 500)}, {}]),
    "old request id": lambda: _envelope(
        "orders.cancel", [[], {"order_id": 1, "member_id": "s0", "request_id": "replay:2"}, {}]
    ),
}
