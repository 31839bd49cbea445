"""Hostile broker messages, each with the reason code expected for it, or None where a task answers it."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

NOW = datetime.now(UTC)  # noqa: TID251 - what a producer writes, by a producer's clock


@dataclass(frozen=True)
class Hostile:
    """One message. `reason`: why it becomes a dead letter, or None if a task answers it."""

    name: str
    raw_or_factory: bytes | Callable[[], bytes]
    reason: str | None

    @cached_property
    def raw(self) -> bytes:
        """The bytes; large ones are created on demand."""
        return self.raw_or_factory if isinstance(self.raw_or_factory, bytes) else self.raw_or_factory()


def message(body: Any = None, *, headers: Any = None, properties: Any = None, **outer: Any) -> dict[str, Any]:
    """A valid message with some fields changed; a field given as `...` is removed."""
    message_id = (headers or {}).get("id") if isinstance(headers, dict) else None
    message_id = message_id if isinstance(message_id, str) else str(uuid.uuid4())
    good_headers: dict[str, Any] = {
        "lang": "py",
        "task": "npb.file",
        "id": message_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": message_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@elsewhere",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    good_properties: dict[str, Any] = {
        "correlation_id": message_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "commands"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    envelope = {
        "body": encoded(ARGUMENTS if body is None else body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": _changed(good_headers, headers),
        "properties": _changed(good_properties, properties),
    }
    raw_or_factory: dict[str, Any] = _changed(envelope, outer)
    return raw_or_factory


EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
ARGUMENTS: list[Any] = [[], {"order_id": 1, "member_id": "nobody"}, EMBED]
"""Of an order that is not there: `refused`, and nothing is done."""


def encoded(body: Any) -> str:
    """A body as kombu writes it; bytes are inserted unchanged."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return base64.b64encode(raw).decode()


def _changed(good: dict[str, Any], changes: Any) -> Any:
    if changes is None or not isinstance(changes, dict):
        return good if changes is None else changes
    merged = good | {name.replace("_type", "-type"): value for name, value in changes.items()}
    return {name: value for name, value in merged.items() if value is not ...}


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _m(name: str, reason: str | None, *body: Any, **changes: Any) -> Hostile:
    return Hostile(name, json.dumps(message(*body, **changes)).encode(), reason)


def _big(name: str, reason: str | None, make: Callable[[], dict[str, Any]]) -> Hostile:
    return Hostile(name, lambda: json.dumps(make()).encode(), reason)


def _kwargs(**arguments: Any) -> list[Any]:
    return [[], {"order_id": 1, "member_id": "nobody"} | arguments, EMBED]


SHAPE, FORBIDDEN, UNREADABLE = "NOT_A_COMMAND", "NOT_ALLOWED", "NOT_JSON"
GOOD = json.dumps(message()).encode()
CALL: dict[str, Any] = {
    "task": "orders.cancel",
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}

EXPECTED: tuple[Hostile, ...] = (
    Hostile("not JSON", b"hello", UNREADABLE),
    Hostile("empty", b"", UNREADABLE),
    Hostile("invalid UTF-8", b"\xff\xfe\x00{}", UNREADABLE),
    Hostile("null", b"null", SHAPE),
    Hostile("number", b"5", SHAPE),
    Hostile("list", b"[1, 2]", SHAPE),
    _m("body not base64", SHAPE, body="%%%"),
    _m("unknown body encoding", SHAPE, properties={"body_encoding": "rot13"}),
    Hostile("envelope nested deep", GOOD[:-1] + b', "x": ' + _nested(10_000) + b"}", UNREADABLE),
    Hostile("envelope nested less deep", GOOD[:-1] + b', "x": ' + _nested(400) + b"}", UNREADABLE),
    _m("delivery tag a list", SHAPE, properties={"delivery_tag": ["a"]}),
    _m("delivery info a text", SHAPE, properties={"delivery_info": "here"}),
    _m("task a list", SHAPE, headers={"task": ["npb.file"]}),
    _m("unknown task without id", SHAPE, headers={"task": "no.such", "id": ...}),
    _m("body a mapping", SHAPE, {"order_id": 1}),
    _m("body of two", SHAPE, [[], {}]),
    _m("no content type", SHAPE, content_type=...),
    _m("time limit a text", FORBIDDEN, headers={"timelimit": "soon"}),
    _m("id a list", SHAPE, headers={"id": ["a"]}),
    _m("headers without id", SHAPE, headers={"id": ...}),
    _big(
        "gzip bomb",
        FORBIDDEN,
        lambda: message(gzip.compress(b"0" * 40_000_000), headers={"compression": "application/x-gzip"}),
    ),
    Hostile("empty mapping", b"{}", SHAPE),
    _m("no properties", SHAPE, properties=5),
    _m("no delivery tag", SHAPE, properties={"delivery_tag": ...}),
    _m("no delivery info", SHAPE, properties={"delivery_info": ...}),
    _m("body not JSON", UNREADABLE, b"hello"),
    _m("unknown compression", FORBIDDEN, headers={"compression": "x"}),
    _m("gzip that is none", FORBIDDEN, b"hello", headers={"compression": "gzip"}),
    _m("reviver garbage", None, _kwargs(comment={"__type__": "datetime", "__value__": "x"})),
    _m("unknown reviver", None, _kwargs(comment={"__type__": "os.system", "__value__": "x"})),
    _m("reviver a list", None, _kwargs(comment={"__type__": ["x"], "__value__": 1})),
    _m("reviver in a header", None, headers={"trace": {"__type__": "datetime", "__value__": "x"}}),
    _m("integer of 5000 digits", UNREADABLE, b'[[], {"order_id": ' + b"9" * 5000 + b"}, {}]"),
    _m("body nested deep", UNREADABLE, b'[[], {"order_id": ' + _nested(20_000) + b"}, {}]"),
    _m("body nested less deep", UNREADABLE, b'[[], {"order_id": ' + _nested(300) + b"}, {}]"),
    _m("UTF-16", UNREADABLE, json.dumps(ARGUMENTS).encode("utf-16")),
    _m("said to be UTF-16", SHAPE, **{"content-encoding": "utf-16"}),
    _m("byte order mark", UNREADABLE, b"\xef\xbb\xbf" + json.dumps(ARGUMENTS).encode()),
    _m("headers missing", SHAPE, headers=...),
    _m("headers null", SHAPE, headers=[]),
    _m("headers a list", SHAPE, headers=["a"]),
    _m("no task", SHAPE, headers={"task": ...}),
    _m(
        "pickle",
        SHAPE,
        pickle.dumps(ARGUMENTS),
        content_type="application/x-python-serialize",
        **{"content-encoding": "binary"},
    ),
    _m("yaml", SHAPE, b"[[], {}, {}]", content_type="application/x-yaml"),
    _m("unknown content type", SHAPE, content_type="text/plain"),
    _m("eta garbage", FORBIDDEN, headers={"eta": "tomorrow"}),
    _m("eta a number", FORBIDDEN, headers={"eta": 5}),
    _m("expires garbage", FORBIDDEN, headers={"expires": "tomorrow"}),
    _m("expires a number", FORBIDDEN, headers={"expires": 5}),
    _m("unknown task", "TASK_UNKNOWN", headers={"task": "no.such"}),
    _m("task null", SHAPE, headers={"task": None}),
    _m("arguments a text", SHAPE, ["x", {}, EMBED]),
    _m("arguments null", SHAPE, [None, {}, EMBED]),
    _m("keyword arguments a list", SHAPE, [[], [], EMBED]),
    _m("keyword arguments null", SHAPE, [[], None, EMBED]),
    _m("wrong arguments", None, [[], {"orders": 5}, EMBED]),
    _m("positional arguments", None, [[1, "nobody"], {}, EMBED]),
    _m("NaN", None, b'[[], {"order_id": NaN, "member_id": "x"}, {}]'),
    _m("Infinity", None, b'[[], {"order_id": -Infinity, "member_id": "x"}, {}]'),
    Hostile("a key twice", GOOD[:-1] + b', "body": "x"}', UNREADABLE),
    _m("an argument twice", UNREADABLE, b'[[], {"order_id": 1, "order_id": 2, "member_id": "x"}, {}]'),
    _m("NUL", None, _kwargs(comment="a\0b", member_id="x\0")),
    _m("lone surrogate", None, _kwargs(comment="\ud800", member_id="\udfff")),
    _m("id of a megabyte", SHAPE, headers={"id": "x" * 1_000_000}),
    _m("id with a newline", SHAPE, headers={"id": "a\n[ERROR] forged"}),
    _m("retries a text", FORBIDDEN, headers={"retries": "many"}),
    _m("retries negative", FORBIDDEN, headers={"retries": -999}),
    _m("retries huge", FORBIDDEN, headers={"retries": 10**9}),
    _m("priority a text", FORBIDDEN, properties={"priority": "high"}),
    _m("priority huge", FORBIDDEN, properties={"priority": 10**6}),
    _m("limits of a day", FORBIDDEN, headers={"timelimit": [1e5, 1e5]}),
    _m("negative limits", FORBIDDEN, headers={"timelimit": [-1, -1]}),
    _m("expired", "EXPIRED", headers={"expires": (NOW - timedelta(seconds=1)).isoformat()}),
    _m("eta in the year 9999", FORBIDDEN, headers={"eta": "9999-12-31T23:59:59+00:00"}),
    _m("a retry in the year 9999", FORBIDDEN, headers={"eta": "9999-12-31T23:59:59+00:00", "retries": 1}),
    _m("id null", SHAPE, headers={"id": None}),
    _m("options a text", SHAPE, [[], {}, "x"]),
    _m("options a list", SHAPE, [[], {}, [1]]),
    _m("forged callback", FORBIDDEN, [[], {}, EMBED | {"callbacks": [CALL]}]),
    _m("forged error callback", FORBIDDEN, [[], {}, EMBED | {"errbacks": [CALL]}]),
    _m("forged chain", FORBIDDEN, [[], {}, EMBED | {"chain": [CALL]}]),
    _m("forged chord", FORBIDDEN, [[], {}, EMBED | {"chord": CALL}]),
    _m("callback in the headers", FORBIDDEN, headers={"callbacks": [CALL]}),
    _m("celery.map", "WRONG_QUEUE", [[CALL, []], {}, EMBED], headers={"task": "celery.map"}),
    _m("celery.chunks", "WRONG_QUEUE", headers={"task": "celery.chunks"}),
    _m("celery.backend_cleanup", "WRONG_QUEUE", headers={"task": "celery.backend_cleanup"}),
    _m("a sweep among commands", "WRONG_QUEUE", [[], {}, EMBED], headers={"task": "bills.issue"}),
    _m("callbacks garbage", FORBIDDEN, [[], {}, EMBED | {"callbacks": "x"}]),
    _m("forged representation", None, headers={"shadow": "<script>", "argsrepr": 5, "kwargsrepr": ["x"]}),
    _m("forged reply_to", None, properties={"reply_to": "commands"}),
    _big("17 MB", "TOO_LARGE", lambda: message(_kwargs(comment="x" * 13_000_000))),
    _big("10 MB", None, lambda: message(_kwargs(comment="x" * 10_000_000))),
    _m("stamps", FORBIDDEN, headers={"stamped_headers": ["a"], "stamps": {"a": "b"}}),
    _m("group", None, headers={"group": "g", "group_index": 1}),
    _m("group a mapping", SHAPE, headers={"group": {"a": 1}}),
    _m("group index a text", SHAPE, headers={"group": "g", "group_index": "1"}),
    _m("eta of two minutes", FORBIDDEN, headers={"eta": (NOW + timedelta(hours=1)).isoformat()}),
    _m("lang a mapping", SHAPE, headers={"lang": {}}),
    Hostile(
        "protocol 1",
        json.dumps(
            message(b'{"task": "npb.file", "id": "a", "args": [], "kwargs": {}}', headers=5) | {"headers": {}}
        ).encode(),
        SHAPE,
    ),
    _m("signed", SHAPE, b"{}", content_type="application/data"),
    _m("not signed", SHAPE, content_type="application/data", **{"content-encoding": "utf-8"}),
    _m("a header that only Celery may set", FORBIDDEN, headers={"delivery_info": {"exchange": "x"}}),
    _m("delivered elsewhere", None, properties={"delivery_info": {"exchange": "x", "routing_key": "sweeps"}}),
)
