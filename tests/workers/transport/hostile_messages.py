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
    Hostile("B01 not JSON", b"hello", UNREADABLE),
    Hostile("B02 empty", b"", UNREADABLE),
    Hostile("B03 invalid UTF-8", b"\xff\xfe\x00{}", UNREADABLE),
    Hostile("B04 null", b"null", SHAPE),
    Hostile("B05 number", b"5", SHAPE),
    Hostile("B06 list", b"[1, 2]", SHAPE),
    _m("B07 body not base64", SHAPE, body="%%%"),
    _m("B08 unknown body encoding", SHAPE, properties={"body_encoding": "rot13"}),
    Hostile("B09 envelope nested deep", GOOD[:-1] + b', "x": ' + _nested(10_000) + b"}", UNREADABLE),
    Hostile("B09 envelope nested less deep", GOOD[:-1] + b', "x": ' + _nested(400) + b"}", UNREADABLE),
    _m("B10 delivery tag a list", SHAPE, properties={"delivery_tag": ["a"]}),
    _m("B11 delivery info a text", SHAPE, properties={"delivery_info": "here"}),
    _m("B12 task a list", SHAPE, headers={"task": ["npb.file"]}),
    _m("B13 unknown task without id", SHAPE, headers={"task": "no.such", "id": ...}),
    _m("B14 body a mapping", SHAPE, {"order_id": 1}),
    _m("B15 body of two", SHAPE, [[], {}]),
    _m("B16 no content type", SHAPE, content_type=...),
    _m("B17 time limit a text", FORBIDDEN, headers={"timelimit": "soon"}),
    _m("B18 id a list", SHAPE, headers={"id": ["a"]}),
    _m("B19 headers without id", SHAPE, headers={"id": ...}),
    _big(
        "B20 gzip bomb",
        FORBIDDEN,
        lambda: message(gzip.compress(b"0" * 40_000_000), headers={"compression": "application/x-gzip"}),
    ),
    Hostile("B21 empty mapping", b"{}", SHAPE),
    _m("B22 no properties", SHAPE, properties=5),
    _m("B23 no delivery tag", SHAPE, properties={"delivery_tag": ...}),
    _m("B24 no delivery info", SHAPE, properties={"delivery_info": ...}),
    _m("B25 body not JSON", UNREADABLE, b"hello"),
    _m("B26 unknown compression", FORBIDDEN, headers={"compression": "x"}),
    _m("B26 gzip that is none", FORBIDDEN, b"hello", headers={"compression": "gzip"}),
    _m("B27 reviver garbage", None, _kwargs(comment={"__type__": "datetime", "__value__": "x"})),
    _m("B27 unknown reviver", None, _kwargs(comment={"__type__": "os.system", "__value__": "x"})),
    _m("B27 reviver a list", None, _kwargs(comment={"__type__": ["x"], "__value__": 1})),
    _m("B27 reviver in a header", None, headers={"trace": {"__type__": "datetime", "__value__": "x"}}),
    _m("B28 integer of 5000 digits", UNREADABLE, b'[[], {"order_id": ' + b"9" * 5000 + b"}, {}]"),
    _m("B29 body nested deep", UNREADABLE, b'[[], {"order_id": ' + _nested(20_000) + b"}, {}]"),
    _m("B29 body nested less deep", UNREADABLE, b'[[], {"order_id": ' + _nested(300) + b"}, {}]"),
    _m("B30 UTF-16", UNREADABLE, json.dumps(ARGUMENTS).encode("utf-16")),
    _m("B30 said to be UTF-16", SHAPE, **{"content-encoding": "utf-16"}),
    _m("B30 byte order mark", UNREADABLE, b"\xef\xbb\xbf" + json.dumps(ARGUMENTS).encode()),
    _m("B31 headers missing", SHAPE, headers=...),
    _m("B31 headers null", SHAPE, headers=[]),
    _m("B31 headers a list", SHAPE, headers=["a"]),
    _m("B31 no task", SHAPE, headers={"task": ...}),
    _m(
        "B32 pickle",
        SHAPE,
        pickle.dumps(ARGUMENTS),
        content_type="application/x-python-serialize",
        **{"content-encoding": "binary"},
    ),
    _m("B33 yaml", SHAPE, b"[[], {}, {}]", content_type="application/x-yaml"),
    _m("B33 unknown content type", SHAPE, content_type="text/plain"),
    _m("B34 eta garbage", FORBIDDEN, headers={"eta": "tomorrow"}),
    _m("B34 eta a number", FORBIDDEN, headers={"eta": 5}),
    _m("B34 expires garbage", FORBIDDEN, headers={"expires": "tomorrow"}),
    _m("B34 expires a number", FORBIDDEN, headers={"expires": 5}),
    _m("B35 unknown task", "TASK_UNKNOWN", headers={"task": "no.such"}),
    _m("B35 task null", SHAPE, headers={"task": None}),
    _m("B36 arguments a text", SHAPE, ["x", {}, EMBED]),
    _m("B36 arguments null", SHAPE, [None, {}, EMBED]),
    _m("B36 keyword arguments a list", SHAPE, [[], [], EMBED]),
    _m("B36 keyword arguments null", SHAPE, [[], None, EMBED]),
    _m("B37 wrong arguments", None, [[], {"orders": 5}, EMBED]),
    _m("B37 positional arguments", None, [[1, "nobody"], {}, EMBED]),
    _m("B38 NaN", None, b'[[], {"order_id": NaN, "member_id": "x"}, {}]'),
    _m("B38 Infinity", None, b'[[], {"order_id": -Infinity, "member_id": "x"}, {}]'),
    Hostile("B39 a key twice", GOOD[:-1] + b', "body": "x"}', UNREADABLE),
    _m("B39 an argument twice", UNREADABLE, b'[[], {"order_id": 1, "order_id": 2, "member_id": "x"}, {}]'),
    _m("B40 NUL", None, _kwargs(comment="a\0b", member_id="x\0")),
    _m("B41 lone surrogate", None, _kwargs(comment="\ud800", member_id="\udfff")),
    _m("B42 id of a megabyte", SHAPE, headers={"id": "x" * 1_000_000}),
    _m("B42 id with a newline", SHAPE, headers={"id": "a\n[ERROR] forged"}),
    _m("B43 retries a text", FORBIDDEN, headers={"retries": "many"}),
    _m("B43 retries negative", FORBIDDEN, headers={"retries": -999}),
    _m("B43 retries huge", FORBIDDEN, headers={"retries": 10**9}),
    _m("B44 priority a text", FORBIDDEN, properties={"priority": "high"}),
    _m("B44 priority huge", FORBIDDEN, properties={"priority": 10**6}),
    _m("B45 limits of a day", FORBIDDEN, headers={"timelimit": [1e5, 1e5]}),
    _m("B46 negative limits", FORBIDDEN, headers={"timelimit": [-1, -1]}),
    _m("B47 expired", "EXPIRED", headers={"expires": (NOW - timedelta(seconds=1)).isoformat()}),
    _m("B48 eta in the year 9999", FORBIDDEN, headers={"eta": "9999-12-31T23:59:59+00:00"}),
    _m("B48 a retry in the year 9999", FORBIDDEN, headers={"eta": "9999-12-31T23:59:59+00:00", "retries": 1}),
    _m("B49 id null", SHAPE, headers={"id": None}),
    _m("B49 options a text", SHAPE, [[], {}, "x"]),
    _m("B49 options a list", SHAPE, [[], {}, [1]]),
    _m("B50 forged callback", FORBIDDEN, [[], {}, EMBED | {"callbacks": [CALL]}]),
    _m("B50 forged error callback", FORBIDDEN, [[], {}, EMBED | {"errbacks": [CALL]}]),
    _m("B50 forged chain", FORBIDDEN, [[], {}, EMBED | {"chain": [CALL]}]),
    _m("B50 forged chord", FORBIDDEN, [[], {}, EMBED | {"chord": CALL}]),
    _m("B50 callback in the headers", FORBIDDEN, headers={"callbacks": [CALL]}),
    _m("B51 celery.map", "WRONG_QUEUE", [[CALL, []], {}, EMBED], headers={"task": "celery.map"}),
    _m("B51 celery.chunks", "WRONG_QUEUE", headers={"task": "celery.chunks"}),
    _m("B51 celery.backend_cleanup", "WRONG_QUEUE", headers={"task": "celery.backend_cleanup"}),
    _m("B51 a sweep among commands", "WRONG_QUEUE", [[], {}, EMBED], headers={"task": "bills.issue"}),
    _m("B52 callbacks garbage", FORBIDDEN, [[], {}, EMBED | {"callbacks": "x"}]),
    _m("B53 forged representation", None, headers={"shadow": "<script>", "argsrepr": 5, "kwargsrepr": ["x"]}),
    _m("B54 forged reply_to", None, properties={"reply_to": "commands"}),
    _big("B55 17 MB", "TOO_LARGE", lambda: message(_kwargs(comment="x" * 13_000_000))),
    _big("B55 10 MB", None, lambda: message(_kwargs(comment="x" * 10_000_000))),
    _m("B56 stamps", FORBIDDEN, headers={"stamped_headers": ["a"], "stamps": {"a": "b"}}),
    _m("B56 group", None, headers={"group": "g", "group_index": 1}),
    _m("B56 group a mapping", SHAPE, headers={"group": {"a": 1}}),
    _m("B56 group index a text", SHAPE, headers={"group": "g", "group_index": "1"}),
    _m("B56 eta of two minutes", FORBIDDEN, headers={"eta": (NOW + timedelta(hours=1)).isoformat()}),
    _m("B56 lang a mapping", SHAPE, headers={"lang": {}}),
    Hostile(
        "B56 protocol 1",
        json.dumps(
            message(b'{"task": "npb.file", "id": "a", "args": [], "kwargs": {}}', headers=5) | {"headers": {}}
        ).encode(),
        SHAPE,
    ),
    _m("B59 signed", SHAPE, b"{}", content_type="application/data"),
    _m("B59 not signed", SHAPE, content_type="application/data", **{"content-encoding": "utf-8"}),
    _m("a header that only Celery may set", FORBIDDEN, headers={"delivery_info": {"exchange": "x"}}),
    _m("delivered elsewhere", None, properties={"delivery_info": {"exchange": "x", "routing_key": "sweeps"}}),
)
