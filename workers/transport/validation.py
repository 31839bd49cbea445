"""Which bytes of a queue are a message that a worker may be given?  Protocol 2, JSON, a task of that queue, no orders to Celery.

Whoever may push to a queue can write there what he likes, and 24 of 92 hostile messages end, loop, starve or fool a worker before
any hook of a task runs (X3).  So everything is looked at before Celery sees it, and what a worker gets is written anew from
the fields that are known: `docs/decisions/0008-redis-transport.md` has the table of what is taken, dropped and refused.
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

from models.payloads import MAX_BYTES, MAX_DEPTH, MAX_PARTS, has_too_many_parts
from schedules.routes import is_internal_task, queue_of

MAX_MESSAGE_BYTES = {"commands": MAX_BYTES}
MAX_BYTES_OTHER_QUEUES = 64 * 2**10
MAX_RETRIES = 1_000_000
"""As `workers.task` counts while the database is away."""
HARD_TIME_LIMIT_SECONDS = 60
"""Seconds a task may run."""
MAX_RETRY_DELAY = timedelta(seconds=30)
"""As our own retries wait; far below half the visibility timeout (F06)."""
MAX_DELAY = timedelta(minutes=1)
"""As long as a producer may put a command off (`countdown`, `eta`); what waits for longer is kept in rows, not in a broker."""
DELAY_TOLERANCE = timedelta(seconds=5)
"""By which a producer's clock may be ahead of a worker's that looks at its `countdown=60`."""
MAX_CLOCK_SKEW = timedelta(hours=2)
"""A retry written by a worker whose clock is ahead by less than this is ours and has waited enough when it is seen."""

_ID = re.compile(r"[!-~]{1,255}")
_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,200}")
_WORD = re.compile(r"[ -~]{0,255}")
_UTF8 = {"utf-8", "utf8"}
_OURS = {
    *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id"),
    *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers"),
    *("stamps", "headers"),
}
_CELERYS = frozenset(name for name in vars(Context) if not name.startswith("__")) | {
    "compression",
    "__dict__",
    "__class__",
}
"""Headers that Celery would take for facts about the run: nobody but Celery may set them."""
_TO_OTHERS = ("stamped_headers", "stamps", "replaced_task_nesting")
MAX_GROUP_INDEX = 1_000_000


@dataclass(eq=False)
class Rejected(Exception):
    """Not a message for this queue.  `reason`: one of models.dead_letters.REASONS; `detail`: a sentence without values of it."""

    reason: str
    detail: str
    named: str | None = None
    message_id: str | None = None
    is_awaited: bool = False
    """Whether its producer may wait for an answer under `message_id`."""


@dataclass(eq=False)
class Delayed(Exception):
    """A good message that is wanted `seconds` from now.  `raw`: the same without its `eta`, so that it waits once only."""

    seconds: float
    raw: bytes


def validate(raw: bytes, queue: str, registered: Container[str], tag: str, now: datetime) -> dict[str, Any]:
    """The message as kombu wants it, from bytes of a queue.  Raises Refused, Delayed and nothing else.

    `registered` knows the names of tasks; `tag` is what this delivery will be known by.
    """
    most = MAX_MESSAGE_BYTES.get(queue, MAX_BYTES_OTHER_QUEUES)
    if len(raw) > most:
        raise Rejected("TOO_LARGE", f"it is longer than {most} bytes")
    envelope = _parsed(raw, "the envelope")
    headers = _mapping(envelope, "headers")
    named, message_id = headers.get("task"), headers.get("id")
    try:
        properties = _mapping(envelope, "properties")
        _kind(envelope, headers)
        _delivery(properties)
        _addressed(named, message_id, queue, registered)
        _body(envelope.get("body"), properties.get("body_encoding"))
        fresh = _headers(headers, now)
        delay = _delay(headers, now)
    except Rejected as refused:
        is_awaited = _fits(_ID, message_id) and not headers.get("ignore_result")
        raise Rejected(refused.reason, refused.detail, _shown(named), _shown(message_id), is_awaited) from None
    if delay > timedelta(0):
        raise Delayed(delay.total_seconds(), _without_eta(raw, tag))
    return {
        "body": envelope["body"],
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": fresh,
        "properties": {
            "correlation_id": message_id,
            "reply_to": "",  # answers go to the result backend only
            "delivery_mode": 2,
            "priority": 0,
            "body_encoding": properties.get("body_encoding"),
            # A new one for each delivery: kombu keeps unacknowledged messages by it, and two with the same would be one.
            "delivery_tag": tag,
            # Where it goes back to: where it was taken from, whatever its producer wrote.
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def _parsed(raw: bytes, what: str) -> Any:
    if has_too_many_parts(raw):
        raise Rejected("TOO_LARGE", f"{what} has more than {MAX_PARTS} parts")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except _Twice:
        raise Rejected("NOT_JSON", f"{what} has a key twice") from None
    except UnicodeDecodeError:
        raise Rejected("NOT_JSON", f"{what} is not UTF-8") from None
    except RecursionError:
        raise Rejected("NOT_JSON", f"{what} is too deep") from None
    except ValueError:  # also for a number of more digits than Python reads
        raise Rejected("NOT_JSON", f"{what} cannot be read as JSON") from None
    level = [found]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise Rejected("NOT_JSON", f"{what} is too deep")
    return found


class _Twice(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def _mapping(outer: Any, name: str) -> dict[str, Any]:
    found = outer.get(name) if isinstance(outer, dict) else None
    if not isinstance(found, dict):
        _shape(f"{name} must be a mapping")
    return found


def _kind(envelope: dict[str, Any], headers: dict[str, Any]) -> None:
    if envelope.get("content-type") != "application/json":
        _shape("content-type must be application/json")
    encoding = envelope.get("content-encoding")
    if not isinstance(encoding, str) or encoding.lower() not in _UTF8:
        _shape("content-encoding must be utf-8")
    if headers.get("compression") is not None:
        _forbidden("a compressed body is not taken")


def _delivery(properties: dict[str, Any]) -> None:
    if not _fits(_ID, properties.get("delivery_tag")):
        _shape("properties.delivery_tag must be a text")
    if not isinstance(properties.get("delivery_info"), dict):
        _shape("properties.delivery_info must be a mapping")
    priority = properties.get("priority")
    if priority is not None and not _is_count(priority, 9):
        _forbidden("properties.priority must be 0 to 9 or left out")


def _addressed(named: Any, message_id: Any, queue: str, registered: Container[str]) -> None:
    if not _fits(_NAME, named):
        _shape("headers.task must be the name of a task")
    if not _fits(_ID, message_id):
        _shape("headers.id must be a text of at most 255 characters without blanks")
    # A name that nobody has goes on to Celery, which tells the caller so (task_unknown, kept by dead_letters); its own
    # tasks would run any other.
    if named.startswith("celery.") or (named in registered and queue_of(named) != queue):
        raise Rejected("WRONG_QUEUE", "its task does not go through this queue")


def _body(body: Any, encoding: Any) -> None:
    if not isinstance(body, str):
        _shape("body must be a text")
    if encoding is None or encoding == "utf-8":
        raw = body.encode("utf-8", "surrogatepass")
    elif encoding == "base64":
        try:
            raw = base64.b64decode(body, validate=True)
        except ValueError:
            _shape("body is not base64")
    else:
        _shape("properties.body_encoding must be base64")
    parts = _parsed(raw, "the body")
    if not isinstance(parts, list) or len(parts) != 3:
        _shape("the body must be a list of three: arguments, keyword arguments, options")
    args, kwargs, embed = parts
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        _shape("the arguments must be a list and a mapping")
    if not isinstance(embed, dict | None):
        _shape("the options of the body must be a mapping")
    if any(embed.values() if embed else ()):
        _forbidden("callbacks, chains and chords are not taken")


def has_no_arguments(message: dict[str, Any]) -> bool:
    """Whether a message that was taken says nothing but the name of its task, as a tick does."""
    body = message["body"]
    args, kwargs, _ = json.loads(base64.b64decode(body) if message["properties"]["body_encoding"] else body)
    return not args and not kwargs


def _headers(headers: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Celery's headers as it wants them, and a stranger's that mean nothing to it (tracing, say)."""
    retries = headers.get("retries") or 0
    if not _is_count(retries, MAX_RETRIES):
        _forbidden("headers.retries must be a small number")
    if not _is_harmless_limit(headers.get("timelimit")):
        _forbidden("headers.timelimit must not go beyond our own")
    if any(headers.get(name) for name in _TO_OTHERS):
        _forbidden("stamps and replaced tasks are not taken")
    _group(headers)
    if not isinstance(headers.get("ignore_result"), bool | None):
        _shape("headers.ignore_result must be true or false")
    if not isinstance(headers.get("headers"), dict | None):
        _shape("headers.headers must be a mapping")
    for name in ("lang", "root_id", "parent_id"):
        if headers.get(name) is not None and not _fits(_WORD, headers[name]):
            _shape(f"headers.{name} must be a short text")
    # kombu reads what is recorded as unacknowledged with its revivers, which fail on what does not fit them.
    others = {name: value for name, value in headers.items() if name not in _OURS and not _holds_typed(value)}
    if any(name in _CELERYS and value is not None for name, value in others.items()):
        _forbidden("a header that only Celery may set")
    origin = headers.get("origin")
    return others | {
        "lang": headers.get("lang") or "py",
        "task": headers["task"],
        "id": headers["id"],
        "shadow": None,  # what a producer wants people to see instead is not shown
        "eta": _eta(headers.get("eta"), retries, now),
        "expires": _expires(headers.get("expires"), now, comes_again=is_internal_task(headers["task"])),
        "group": None,
        "group_index": None,
        "retries": retries,
        "timelimit": [None, None],  # ours hold, whatever the message says
        "root_id": headers.get("root_id") or headers["id"],
        "parent_id": headers.get("parent_id"),
        "argsrepr": "",  # workers.redaction writes them
        "kwargsrepr": "",
        "origin": origin if _fits(_WORD, origin) else None,
        "ignore_result": bool(headers.get("ignore_result")),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "headers": None if _holds_typed(headers.get("headers")) else headers.get("headers"),
    }


def _group(headers: dict[str, Any]) -> None:
    """A group without a chord is its producer's own list of ids: nothing follows from it here."""
    if not isinstance(headers.get("group"), str | None):
        _shape("headers.group must be a text")
    if headers.get("group_index") is not None and not _is_count(headers["group_index"], MAX_GROUP_INDEX):
        _shape("headers.group_index must be a number")


def _eta(said: Any, retries: int, now: datetime) -> str | None:
    """Only our own retries wait in a worker, and never long: time is kept in rows (F06)."""
    if said is None or not retries:
        return None
    at = _instant(said, "eta")
    if at - now > MAX_CLOCK_SKEW:
        _forbidden("headers.eta of a retry is too far away")
    return min(at, now + MAX_RETRY_DELAY).isoformat()


def _delay(headers: dict[str, Any], now: datetime) -> timedelta:
    """How long a producer wants it put off; what waits in the broker for so long takes no worker's slot."""
    if headers.get("eta") is None or headers.get("retries"):
        return timedelta(0)
    delay = _instant(headers["eta"], "eta") - now
    if delay > MAX_DELAY + DELAY_TOLERANCE:
        _forbidden("headers.eta is more than a minute away: send it when it is wanted")
    return min(delay, MAX_DELAY)


def _without_eta(raw: bytes, tag: str) -> bytes:
    """A message that has waited is taken at once, whatever the clock of the worker that meets it says.

    `tag` tells it from another one with the same bytes.
    """
    envelope = json.loads(raw)
    envelope["headers"]["eta"] = None
    envelope["properties"]["delivery_tag"] = tag
    return json.dumps(envelope).encode()


def _expires(said: Any, now: datetime, *, comes_again: bool) -> str | None:
    """Ticks and rings come again, so Celery drops those that are late; a command that came too late is kept and seen."""
    if said is None:
        return None
    until = _instant(said, "expires")
    if until <= now and not comes_again:
        raise Rejected("EXPIRED", "its producer wanted it done by an instant that has passed")
    return until.isoformat()


def _instant(said: Any, name: str) -> datetime:
    try:
        found = datetime.fromisoformat(said)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        _forbidden(f"headers.{name} must be an instant as Celery writes it")


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_harmless_limit(value: Any) -> bool:
    """Celery writes a task's own limits into each message of a client that has the task."""
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(
        n is None or (isinstance(n, int | float) and not isinstance(n, bool) and 0 < n <= HARD_TIME_LIMIT_SECONDS)
        for n in value
    )


def _holds_typed(value: Any) -> bool:
    """Whether kombu would revive something in it; it is at most MAX_DEPTH levels deep."""
    if isinstance(value, dict):
        return "__type__" in value or any(map(_holds_typed, value.values()))
    return isinstance(value, list) and any(map(_holds_typed, value))


def _shown(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _shape(detail: str) -> NoReturn:
    raise Rejected("NOT_A_COMMAND", detail)


def _forbidden(detail: str) -> NoReturn:
    raise Rejected("NOT_ALLOWED", detail)
