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
from typing import Annotated, Any, Literal

from celery.app.task import Context
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

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

_DECODER = json.JSONDecoder(object_pairs_hook=refuse_duplicate_names)
_MESSAGE_ID = r"^[!-~]{1,255}$"
_SHORT_TEXT = r"^[ -~]{0,255}$"


def _parse_header_time(text: Any) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, OverflowError):
        raise ValueError from None


_EMPTY_AS_NONE = BeforeValidator(lambda value: value or None)  # clients differ in how they write that there are none
_MessageId = Annotated[str, Field(pattern=_MESSAGE_ID)]
_ShortText = Annotated[str, Field(pattern=_SHORT_TEXT)]
_HeaderTime = Annotated[datetime, BeforeValidator(_parse_header_time)]
_TimeLimit = Annotated[float, Field(gt=0, le=HARD_TIME_LIMIT_SECONDS)]


class _Headers(BaseModel, strict=True):
    task: str = Field(pattern=r"^[A-Za-z0-9_.:\-]{1,200}$")
    id: _MessageId
    compression: None = None
    retries: Annotated[Annotated[int, Field(ge=0, le=MAX_RETRIES)] | None, _EMPTY_AS_NONE] = None
    timelimit: list[_TimeLimit | None] | None = Field(None, min_length=2, max_length=2)
    stamped_headers: Annotated[None, _EMPTY_AS_NONE] = None
    stamps: Annotated[None, _EMPTY_AS_NONE] = None
    replaced_task_nesting: Annotated[None, _EMPTY_AS_NONE] = None
    group: str | None = None  # which without a chord is only its producer's list of ids
    group_index: int | None = Field(None, ge=0, le=1_000_000)
    ignore_result: bool | None = None
    headers: dict[str, Any] | None = None
    lang: _ShortText | None = None
    root_id: _ShortText | None = None
    parent_id: _ShortText | None = None
    eta: _HeaderTime | None = None
    expires: _HeaderTime | None = None


class _Properties(BaseModel, strict=True):
    delivery_tag: _MessageId
    delivery_info: dict[str, Any]
    priority: int | None = Field(None, ge=0, le=9)
    body_encoding: Literal["base64", "utf-8"] | None = None


class _Envelope(BaseModel, strict=True):
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: str = Field(alias="content-encoding", pattern="(?i)^utf-?8$")
    properties: _Properties
    headers: _Headers
    body: str


_KNOWN_HEADERS = {*_Headers.model_fields, "shadow", "argsrepr", "kwargsrepr", "origin"}
# Headers that would overwrite attributes of Celery's task context: only Celery may set them.
_CONTEXT_HEADERS = frozenset(name for name in vars(Context) if not name.startswith("__")) | {"__dict__", "__class__"}
_LIMITS = {
    "properties.priority": "must be 0 to 9 or left out",
    "headers.compression": "must be left out: a compressed body is not taken",
    "headers.retries": "must be a small number",
    "headers.timelimit": "must not go beyond our own",
    "headers.eta": "must be an instant as Celery writes it",
    "headers.expires": "must be an instant as Celery writes it",
    "headers.stamped_headers": "must be empty: stamps are not taken",
    "headers.stamps": "must be empty: stamps are not taken",
    "headers.replaced_task_nesting": "must be 0: replaced tasks are not taken",
}
"""Fields of which an invalid value is NOT_ALLOWED; of others it is NOT_A_COMMAND."""
_SENTENCES = _LIMITS | {
    "content-type": "must be application/json",
    "content-encoding": "must be utf-8",
    "headers.task": "must be the name of a task",
    "headers.id": "must be a text of at most 255 characters without blanks",
    **dict.fromkeys(("the envelope", "headers", "properties"), "must be a mapping"),
}


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
    sent_headers: Any = envelope.get("headers") if isinstance(envelope, dict) else None
    try:
        checked = _check_envelope(envelope)
        headers, encoding = checked.headers, checked.properties.body_encoding
        # An unknown task passes: Celery reports it to the caller (task_unknown) and it becomes a dead letter.  Celery's
        # own tasks could run any other task.
        is_elsewhere = headers.task in registered and queue_of(headers.task) != queue and headers.task != HEARTBEAT
        if is_elsewhere or headers.task.startswith("celery."):
            raise Rejected("WRONG_QUEUE", "its task does not go through this queue")
        _check_message_body(checked.body, encoding)
        rebuilt_headers = _rebuild_headers(headers, sent_headers, now)
    except Rejected as rejection:
        if isinstance(sent_headers, dict):
            rejection.named, rejection.message_id = map(
                _text_header, (sent_headers.get("task"), sent_headers.get("id"))
            )
            is_id = re.fullmatch(_MESSAGE_ID, rejection.message_id or "") is not None
            rejection.is_awaited = is_id and not sent_headers.get("ignore_result")
        raise
    return {
        "body": checked.body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": rebuilt_headers,
        "properties": {
            "correlation_id": headers.id,
            "reply_to": "",  # answers go to the result backend only
            "delivery_mode": 2,
            "priority": 0,
            "body_encoding": encoding,
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
        parsed = _DECODER.decode(raw.decode("utf-8"))
        if not exceeds_payload_depth(parsed, MAX_PAYLOAD_DEPTH + 1):
            return parsed
        problem = "is too deep"
    except RecursionError:
        problem = "is too deep"
    except DuplicatePayloadName:
        problem = "has a key twice"
    except ValueError:  # also for a number of more digits than Python reads
        problem = "cannot be read as JSON in UTF-8"
    raise Rejected("NOT_JSON", f"{part} {problem}")


def _check_envelope(envelope: Any) -> _Envelope:
    try:
        return _Envelope.model_validate(envelope)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, problem["loc"][:2])) or "the envelope"
    sentence = f"{field} {_SENTENCES[field]}" if field in _SENTENCES else f"{field}: {problem['msg']}"
    raise Rejected("NOT_ALLOWED" if field in _LIMITS else "NOT_A_COMMAND", sentence)


def _check_message_body(body: str, encoding: str | None) -> None:
    try:
        raw = base64.b64decode(body, validate=True) if encoding == "base64" else body.encode()
    except ValueError:
        raise Rejected("NOT_A_COMMAND", "body is not base64") from None
    parts = _parse_json_part(raw, "the body")
    if not isinstance(parts, list) or len(parts) != 3:
        raise Rejected("NOT_A_COMMAND", "the body must be a list of three: arguments, keyword arguments, options")
    args, kwargs, embed = parts
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise Rejected("NOT_A_COMMAND", "the arguments must be a list and a mapping")
    if not isinstance(embed, dict | None):
        raise Rejected("NOT_A_COMMAND", "the options of the body must be a mapping")
    if any(embed.values() if embed else ()):
        raise Rejected("NOT_ALLOWED", "callbacks, chains and chords are not taken")


def _rebuild_headers(headers: _Headers, sent_headers: dict[str, Any], now: datetime) -> dict[str, Any]:
    # The known headers in Celery's form, with other headers that mean nothing to it (tracing, say).
    # kombu reads recorded messages with its revivers, which fail on unexpected values.
    others = {
        name: value
        for name, value in sent_headers.items()
        if name not in _KNOWN_HEADERS and not holds_typed_object(value)
    }
    if any(name in _CONTEXT_HEADERS and value is not None for name, value in others.items()):
        raise Rejected("NOT_ALLOWED", "a header that only Celery may set")
    is_late = headers.expires is not None and headers.expires <= now
    if is_late and not is_internal_task(headers.task):  # Celery drops a late internal task; a command is recorded
        raise Rejected("EXPIRED", "its producer wanted it done by an instant that has passed")
    origin = _text_header(sent_headers.get("origin"))
    return others | {
        "lang": headers.lang or "py",
        "task": headers.task,
        "id": headers.id,
        "shadow": None,  # a producer must not choose what Flower displays
        "eta": _retry_eta(headers, now),
        "expires": headers.expires and headers.expires.isoformat(),
        "group": None,
        "group_index": None,
        "retries": headers.retries or 0,
        "timelimit": [None, None],  # the limits of our settings apply
        "root_id": headers.root_id or headers.id,
        "parent_id": headers.parent_id,
        "argsrepr": "",  # workers.redaction writes them
        "kwargsrepr": "",
        "origin": origin if origin and re.fullmatch(_SHORT_TEXT, origin) else None,
        "ignore_result": bool(headers.ignore_result),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "headers": None if holds_typed_object(headers.headers) else headers.headers,
    }


def _retry_eta(headers: _Headers, now: datetime) -> str | None:
    # The time of a retry, at most MAX_RETRIED_MESSAGE_DELAY from now; only our own retries wait in a worker.  What a
    # producer wants delayed waits in the broker and occupies no worker's slot.
    if headers.eta is None or (headers.eta <= now and not headers.retries):
        return None
    delay = headers.eta - now
    if headers.retries:
        if delay > MAX_HEADER_CLOCK_SKEW:
            raise Rejected("NOT_ALLOWED", "headers.eta of a retry is too far away")
        return min(headers.eta, now + MAX_RETRIED_MESSAGE_DELAY).isoformat()
    if delay > MAX_MESSAGE_DELAY + MESSAGE_DELAY_TOLERANCE:
        raise Rejected("NOT_ALLOWED", "headers.eta is more than a minute away: send it when it is wanted")
    raise ValidButDelayed(min(delay, MAX_MESSAGE_DELAY).total_seconds())


def _text_header(value: Any) -> str | None:
    return value if isinstance(value, str) else None
