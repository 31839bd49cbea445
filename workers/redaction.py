"""What of a message may be seen by people who only look?  Ids and codes; never comments, addresses or money.

Flower, events and logs show the `argsrepr` and `kwargsrepr` of a message, and a producer puts there what it likes.  So
our producers write them from an allow-list, and our workers rewrite them for messages from elsewhere (reliability F64).
Answers are shown by outcome and code alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from celery.app.amqp import AMQP
from celery.exceptions import InvalidTaskError

from schedules.timetable import TIMETABLE
from workers.transport.acknowledgement import SettledRequest
from workers.transport.channel import Connection

VISIBLE_ARGUMENTS = (
    "order_id",
    "removal_id",
    "draft_id",
    "lot_id",
    "member_id",
    "seller_id",
    "buyer_id",
    "request_id",
    "reason",
    "grounds",
    "status",
    "payment_status",
    "billing_month",
    "payment_id",
    "dry_run",
    "notice_id",
)
NUMERIC_ARGUMENTS = ("order_id", "removal_id", "lot_id")
"""Shown as numbers whichever way they were written, so that a search finds both."""
COUNTED_ARGUMENTS = ("orders", "rows", "lines")
TICKS = frozenset(entry.task for entry in TIMETABLE)
"""Told of only when they found something or failed: five a second that found nothing would push all else off the page."""
_PLAIN = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_ANSWER = re.compile(r"\{'outcome': '(?P<outcome>[a-z]+)', 'code': (?:None|'(?P<code>[A-Z_]+)')")
_COUNTS = re.compile(r"'effects': \{((?:'[a-z_]+': \d+(?:, )?)+)\}")
_COUNT = re.compile(r"'([a-z_]+)': (\d+)")


def redact_arguments(arguments: Any) -> str:
    """`order_id=1003 member_id=s-881`, for people and logs."""
    return " ".join(f"{name}={value}" for name, value in _shown(arguments).items())


def redact_arguments_for_search(arguments: Any) -> str:
    """The same as Flower's search reads it: only in the words of a dict does it find `kwargs:order_id=1003`."""
    return repr(_shown(arguments))


def _shown(arguments: Any) -> dict[str, Any]:
    """What is on the list and looks like an id or a code; lists by their length."""
    if not isinstance(arguments, Mapping):
        return {}
    said = {name: arguments[name] for name in VISIBLE_ARGUMENTS if name in arguments and _is_plain(arguments[name])}
    said |= {name: int(said[name]) for name in NUMERIC_ARGUMENTS if str(said.get(name, "")).isdecimal()}
    return said | {name: len(arguments[name]) for name in COUNTED_ARGUMENTS if isinstance(arguments.get(name), list)}


def redact_answer(written: str) -> str:
    """`refused TOO_EARLY`, `done unlocked=3`: outcome and code of an answer that Celery wrote down, and plain counts."""
    answer = _ANSWER.match(written)
    if answer is None:
        return ""
    said = [answer["outcome"], answer["code"] or ""]
    if effects := _COUNTS.search(written):
        said += [f"{name}={count}" for name, count in _COUNT.findall(effects[1])]
    return " ".join(word for word in said if word)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _PLAIN.fullmatch(value) is not None
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)


_AS_TASK = inspect.signature(AMQP.as_task_v2)


class RedactedAMQP(AMQP):
    """Writes messages whose representation shows ids and codes only, and takes them by our own transport."""

    Connection = Connection

    def as_task_v2(self, *positional: Any, **named: Any) -> Any:
        """Celery's own message, with our representation; Celery gives the arguments by place."""
        given = _AS_TASK.bind(self, *positional, **named)
        given.arguments["argsrepr"] = "()"
        given.arguments["kwargsrepr"] = redact_arguments_for_search(given.arguments.get("kwargs"))
        if given.arguments["name"] in TICKS and not given.arguments.get("kwargs"):
            given.arguments["create_sent_event"] = False
        return super().as_task_v2(*given.args[1:], **given.kwargs)


class RedactedRequest(SettledRequest):
    """A message as the worker has it: what its producer wrote for people to see is written anew."""

    def __init__(self, message: Any, **options: Any) -> None:
        """Raises InvalidTaskError for a body of another shape, which the consumer drops without dying (F29)."""
        try:
            super().__init__(message, **options)
        except InvalidTaskError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a stranger sent must not end the worker
            raise InvalidTaskError(f"not a message of ours: {type(error).__name__}") from None
        if not isinstance(self._args, (list, tuple)) or not isinstance(self._kwargs, dict):
            raise InvalidTaskError("not a message of ours: arguments are a list and a mapping")
        self._argsrepr = "()" if not self._args else f"({len(self._args)} positional)"
        self._kwargsrepr = redact_arguments_for_search(self._kwargs)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature
        """What `celery inspect active` and Flower's page of a worker say of it: never the arguments themselves (F64)."""
        told: dict[str, Any] = super().info(safe=True)
        return told

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name for it
        """Tell those who watch.  Of a tick Celery itself tells nothing (`send_events` is off): here, once it is worth it."""
        if type == "task-succeeded":
            fields["result"] = redact_answer(str(fields.get("result")))
        if self.task.send_events:
            super().send_event(type, **fields)
        elif self._eventer and self._eventer.enabled and type != "task-started":
            if type == "task-succeeded" and not re.search(r"=[1-9]", fields["result"]):
                return
            about = {"name": self.name, "args": self._argsrepr, "kwargs": self._kwargsrepr, "uuid": self.id}
            began = {"timestamp": self.time_start} if self.time_start else {}
            self._eventer.send("task-received", root_id=self.root_id, parent_id=self.parent_id, **about, **began)
            self._eventer.send(type, uuid=self.id, **fields)
