"""Validation of raw messages before Celery sees them: protocol 2, JSON, a known task, no embedded Celery directives.

Any client that may push to a queue can write arbitrary bytes there, and 24 of 92 hostile messages end, loop, starve or
fool a worker before any hook of a task runs.  So every message is validated first, and the worker gets one that is
rebuilt from known fields: `docs/decisions/0008-redis-transport.md` has the table of what is accepted, dropped and
rejected.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from celery.app.task import Context

from models.payload_limits import (
    MAX_PAYLOAD_BYTES,
    MAX_PAYLOAD_DEPTH,
    MAX_PAYLOAD_PARTS,
    DuplicatePayloadName,
    exceeds_payload_depth,
    has_too_many_parts,
    refuse_duplicate_names,
)
from schedules.routes import HEARTBEAT, is_internal_task, queue_of
from workers.transport.plain_json import holds_typed_object

MAX_MESSAGE_BYTES = {"commands": MAX_PAYLOAD_BYTES}
MAX_BYTES_OTHER_QUEUES = 64 * 2**10
MAX_RETRIES = 1_000_000  # of a valid message: the limit that `workers.task` sets while the database is away
HARD_TIME_LIMIT_SECONDS = 60  # after which a task's process is killed; no valid message has a longer limit
MAX_RETRIED_MESSAGE_DELAY = timedelta(seconds=30)  # of our own retries; far below half the visibility timeout
MAX_MESSAGE_DELAY = timedelta(minutes=1)  # of a producer's `countdown` or `eta`; longer waits belong in rows
MESSAGE_DELAY_TOLERANCE = timedelta(seconds=5)  # a producer's valid clock may be ahead of a worker's by this
MAX_HEADER_CLOCK_SKEW = timedelta(hours=2)  # the clock of the worker that wrote a retry may be ahead by this

_MESSAGE_ID = re.compile(r"[!-~]{1,255}")
_TASK_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,200}")
_SHORT_TEXT = re.compile(r"[ -~]{0,255}")
_UTF8_HEADERS = {"utf-8", "utf8"}
_KNOWN_HEADERS = {
    *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id"),
    *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers"),
    *("stamps", "headers"),
}
# Headers that would overwrite attributes of Celery's task context: only Celery may set them.
_CONTEXT_HEADERS = frozenset(name for name in vars(Context) if not name.startswith("__")) | {
    "compression",
    "__dict__",
    "__class__",
}
_FORBIDDEN_HEADERS = ("stamped_headers", "stamps", "replaced_task_nesting")
MAX_GROUP_INDEX_HEADER = 1_000_000


@dataclass(eq=False)
class Rejected(Exception):
    """The message is not valid for this queue.

    `reason` is one of models.dead_letters.DEAD_LETTER_ROW_REASONS, `detail` a sentence without values of the message.
    """

    reason: str
    detail: str
    named: str | None = None
    message_id: str | None = None
    is_awaited: bool = False
    """Whether its producer may wait for an answer under `message_id`."""


@dataclass(eq=False)
class ValidButDelayed(Exception):
    """The message is valid and due in `seconds`."""

    seconds: float


def validate_message(raw: bytes, queue: str, registered: Container[str], tag: str, now: datetime) -> dict[str, Any]:
    """Return the message in kombu's form.  Raises Rejected or ValidButDelayed and nothing else.

    `registered` contains the names of tasks; `tag` becomes the delivery tag.
    """
    max_bytes = MAX_MESSAGE_BYTES.get(queue, MAX_BYTES_OTHER_QUEUES)
    if len(raw) > max_bytes:
        raise Rejected("TOO_LARGE", f"it is longer than {max_bytes} bytes")
    envelope = _parse_json_part(raw, "the envelope")
    headers = _message_part(envelope, "headers")
    named, message_id = headers.get("task"), headers.get("id")
    try:
        properties = _message_part(envelope, "properties")
        _check_message_content_type(envelope, headers)
        _check_message_properties(properties)
        _check_task(named, message_id, queue, registered)
        _check_message_body(envelope.get("body"), properties.get("body_encoding"))
        checked_headers = _validated_headers(headers, now)
        delay = _validated_delay_header(headers, now)
    except Rejected as rejection:
        is_awaited = _header_matches(_MESSAGE_ID, message_id) and not headers.get("ignore_result")
        raise Rejected(
            rejection.reason, rejection.detail, text_header(named), text_header(message_id), is_awaited
        ) from None
    if delay > timedelta(0):
        raise ValidButDelayed(delay.total_seconds())
    return {
        "body": envelope["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": checked_headers,
        "properties": {
            "correlation_id": message_id,
            "reply_to": "",  # answers go to the result backend only
            "delivery_mode": 2,
            "priority": 0,
            "body_encoding": properties.get("body_encoding"),
            # New for each delivery: kombu keys unacknowledged messages by it.
            "delivery_tag": tag,
            # Where it is requeued: the queue it came from, whatever its producer wrote.
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def _parse_json_part(raw: bytes, part: str) -> Any:
    if has_too_many_parts(raw):
        raise Rejected("TOO_LARGE", f"{part} has more than {MAX_PAYLOAD_PARTS} parts")
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=refuse_duplicate_names)
    except DuplicatePayloadName:
        raise Rejected("NOT_JSON", f"{part} has a key twice") from None
    except UnicodeDecodeError:
        raise Rejected("NOT_JSON", f"{part} is not UTF-8") from None
    except RecursionError:
        raise Rejected("NOT_JSON", f"{part} is too deep") from None
    except ValueError:  # also for a number of more digits than Python reads
        raise Rejected("NOT_JSON", f"{part} cannot be read as JSON") from None
    if exceeds_payload_depth(parsed, MAX_PAYLOAD_DEPTH + 1):
        raise Rejected("NOT_JSON", f"{part} is too deep")
    return parsed


def _message_part(outer: Any, name: str) -> dict[str, Any]:
    mapping = outer.get(name) if isinstance(outer, dict) else None
    if not isinstance(mapping, dict):
        _reject_shape(f"{name} must be a mapping")
    return mapping


def _check_message_content_type(envelope: dict[str, Any], headers: dict[str, Any]) -> None:
    if envelope.get("content-type") != "application/json":
        _reject_shape("content-type must be application/json")
    encoding = envelope.get("content-encoding")
    if not isinstance(encoding, str) or encoding.lower() not in _UTF8_HEADERS:
        _reject_shape("content-encoding must be utf-8")
    if headers.get("compression") is not None:
        _reject_forbidden("a compressed body is not taken")


def _check_message_properties(properties: dict[str, Any]) -> None:
    if not _header_matches(_MESSAGE_ID, properties.get("delivery_tag")):
        _reject_shape("properties.delivery_tag must be a text")
    if not isinstance(properties.get("delivery_info"), dict):
        _reject_shape("properties.delivery_info must be a mapping")
    priority = properties.get("priority")
    if priority is not None and not _is_small_count(priority, 9):
        _reject_forbidden("properties.priority must be 0 to 9 or left out")


def _check_task(named: Any, message_id: Any, queue: str, registered: Container[str]) -> None:
    if not _header_matches(_TASK_NAME, named):
        _reject_shape("headers.task must be the name of a task")
    if not _header_matches(_MESSAGE_ID, message_id):
        _reject_shape("headers.id must be a text of at most 255 characters without blanks")
    # An unknown task passes: Celery reports it to the caller (task_unknown) and it becomes a dead letter.  Celery's own
    # tasks could run any other task.
    if named.startswith("celery.") or (named in registered and queue_of(named) != queue and named != HEARTBEAT):
        raise Rejected("WRONG_QUEUE", "its task does not go through this queue")


def _check_message_body(body: Any, encoding: Any) -> None:
    if not isinstance(body, str):
        _reject_shape("body must be a text")
    if encoding is None or encoding == "utf-8":
        raw = body.encode("utf-8", "surrogatepass")
    elif encoding == "base64":
        try:
            raw = base64.b64decode(body, validate=True)
        except ValueError:
            _reject_shape("body is not base64")
    else:
        _reject_shape("properties.body_encoding must be base64")
    parts = _parse_json_part(raw, "the body")
    if not isinstance(parts, list) or len(parts) != 3:
        _reject_shape("the body must be a list of three: arguments, keyword arguments, options")
    args, kwargs, embed = parts
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        _reject_shape("the arguments must be a list and a mapping")
    if not isinstance(embed, dict | None):
        _reject_shape("the options of the body must be a mapping")
    if any(embed.values() if embed else ()):
        _reject_forbidden("callbacks, chains and chords are not taken")


def _validated_headers(headers: dict[str, Any], now: datetime) -> dict[str, Any]:
    # The known headers in Celery's form, with other headers that mean nothing to it (tracing, say).
    retries = headers.get("retries") or 0
    if not _is_small_count(retries, MAX_RETRIES):
        _reject_forbidden("headers.retries must be a small number")
    if not _is_harmless_time_limit(headers.get("timelimit")):
        _reject_forbidden("headers.timelimit must not go beyond our own")
    if any(headers.get(name) for name in _FORBIDDEN_HEADERS):
        _reject_forbidden("stamps and replaced tasks are not taken")
    _check_group_header(headers)
    if not isinstance(headers.get("ignore_result"), bool | None):
        _reject_shape("headers.ignore_result must be true or false")
    if not isinstance(headers.get("headers"), dict | None):
        _reject_shape("headers.headers must be a mapping")
    for name in ("lang", "root_id", "parent_id"):
        if headers.get(name) is not None and not _header_matches(_SHORT_TEXT, headers[name]):
            _reject_shape(f"headers.{name} must be a short text")
    # kombu reads recorded messages with its revivers, which fail on unexpected values.
    others = {
        name: value for name, value in headers.items() if name not in _KNOWN_HEADERS and not holds_typed_object(value)
    }
    if any(name in _CONTEXT_HEADERS and value is not None for name, value in others.items()):
        _reject_forbidden("a header that only Celery may set")
    origin = headers.get("origin")
    return others | {
        "lang": headers.get("lang") or "py",
        "task": headers["task"],
        "id": headers["id"],
        "shadow": None,  # a producer must not choose what Flower displays
        "eta": _retry_eta(headers.get("eta"), retries, now),
        "expires": _expiry_time(headers.get("expires"), now, is_internal=is_internal_task(headers["task"])),
        "group": None,
        "group_index": None,
        "retries": retries,
        "timelimit": [None, None],  # the limits of our settings apply
        "root_id": headers.get("root_id") or headers["id"],
        "parent_id": headers.get("parent_id"),
        "argsrepr": "",  # workers.redaction writes them
        "kwargsrepr": "",
        "origin": origin if _header_matches(_SHORT_TEXT, origin) else None,
        "ignore_result": bool(headers.get("ignore_result")),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "headers": None if holds_typed_object(headers.get("headers")) else headers.get("headers"),
    }


def _check_group_header(headers: dict[str, Any]) -> None:
    # Check the group, which without a chord is only its producer's list of ids.
    if not isinstance(headers.get("group"), str | None):
        _reject_shape("headers.group must be a text")
    if headers.get("group_index") is not None and not _is_small_count(headers["group_index"], MAX_GROUP_INDEX_HEADER):
        _reject_shape("headers.group_index must be a number")


def _retry_eta(text: Any, retries: int, now: datetime) -> str | None:
    # The time of a retry, at most MAX_RETRIED_MESSAGE_DELAY from now. Only our own retries wait in a worker.
    if text is None or not retries:
        return None
    at = _parse_header_time(text, "eta")
    if at - now > MAX_HEADER_CLOCK_SKEW:
        _reject_forbidden("headers.eta of a retry is too far away")
    return min(at, now + MAX_RETRIED_MESSAGE_DELAY).isoformat()


def _validated_delay_header(headers: dict[str, Any], now: datetime) -> timedelta:
    # How long the producer wants the message delayed; it waits in the broker and occupies no worker's slot.
    if headers.get("eta") is None or headers.get("retries"):
        return timedelta(0)
    delay = _parse_header_time(headers["eta"], "eta") - now
    if delay > MAX_MESSAGE_DELAY + MESSAGE_DELAY_TOLERANCE:
        _reject_forbidden("headers.eta is more than a minute away: send it when it is wanted")
    return min(delay, MAX_MESSAGE_DELAY)


def _expiry_time(text: Any, now: datetime, *, is_internal: bool) -> str | None:
    # The expiry of an internal task, which Celery drops when late; reject a late command, so that it is recorded.
    if text is None:
        return None
    expires_at = _parse_header_time(text, "expires")
    if expires_at <= now and not is_internal:
        raise Rejected("EXPIRED", "its producer wanted it done by an instant that has passed")
    return expires_at.isoformat()


def _parse_header_time(text: Any, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        _reject_forbidden(f"headers.{name} must be an instant as Celery writes it")


def _header_matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_small_count(value: Any, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum


def _is_harmless_time_limit(value: Any) -> bool:
    # Whether a time limit is none or within ours; Celery clients that have the task send its limits.
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(
        n is None or (isinstance(n, int | float) and not isinstance(n, bool) and 0 < n <= HARD_TIME_LIMIT_SECONDS)
        for n in value
    )


def text_header(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _reject_shape(detail: str) -> NoReturn:
    raise Rejected("NOT_A_COMMAND", detail)


def _reject_forbidden(detail: str) -> NoReturn:
    raise Rejected("NOT_ALLOWED", detail)
