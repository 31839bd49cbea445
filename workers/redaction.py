"""What events, logs and Flower may show of a message: ids and codes; never comments, addresses or money.

Flower, events and logs show the `argsrepr` and `kwargsrepr` of a message, which a producer can set to any text.  So our
producers write them from an allow-list, and our workers rewrite them for messages from elsewhere.  Answers are shown by
outcome, code and counts alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from celery.app.amqp import AMQP

from workers.transport.acknowledgement import SettledRequest
from workers.transport.connection import Connection

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
VISIBLE_NUMBERS = ("order_id", "removal_id", "lot_id")
"""Shown as numbers even when sent as text, so that one search finds both."""
VISIBLE_LENGTHS = ("orders", "rows", "lines")
"""Lists shown by their length."""
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_ANSWER_REPR = re.compile(r"\{'outcome': '(?P<outcome>[a-z]+)', 'code': (?:None|'(?P<code>[A-Z_]+)')")
_EFFECT_COUNTS = re.compile(r"'effects': \{((?:'[a-z_]+': \d+(?:, )?)+)\}")


def redact_arguments(arguments: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in _visible_arguments(arguments).items())


def redact_arguments_for_search(arguments: Any) -> str:
    """Render them as a dict, the only form in which Flower's search finds `kwargs:order_id=1003`."""
    return repr(_visible_arguments(arguments))


def _visible_arguments(arguments: Any) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        return {}
    visible = {
        name: arguments[name] for name in VISIBLE_ARGUMENTS if name in arguments and _is_visible(arguments[name])
    }
    visible |= {name: int(visible[name]) for name in VISIBLE_NUMBERS if str(visible.get(name, "")).isdecimal()}
    return visible | {name: len(arguments[name]) for name in VISIBLE_LENGTHS if isinstance(arguments.get(name), list)}


def redact_answer(representation: str) -> str:
    answer = _ANSWER_REPR.match(representation)
    if answer is None:
        return ""
    words = [answer["outcome"], answer["code"] or ""]
    if effects := _EFFECT_COUNTS.search(representation):
        words += [f"{name}={count}" for name, count in re.findall(r"'([a-z_]+)': (\d+)", effects[1])]
    return " ".join(word for word in words if word)


def _is_visible(value: Any) -> bool:
    if isinstance(value, str):
        return _PLAIN_VALUE.fullmatch(value) is not None
    return isinstance(value, int) and abs(value) < 2**63


class RedactedAMQP(AMQP):
    Connection = Connection
    _as_task_signature = inspect.signature(AMQP.as_task_v2)

    def as_task_v2(self, *args: Any, **kwargs: Any) -> Any:
        # Celery passes the arguments by position.
        bound = self._as_task_signature.bind(self, *args, **kwargs)
        bound.arguments["argsrepr"] = "()"
        bound.arguments["kwargsrepr"] = redact_arguments_for_search(bound.arguments.get("kwargs"))
        task = self.app.tasks.get(bound.arguments["name"])
        if task is not None and not task.send_events and not bound.arguments.get("kwargs"):
            bound.arguments["create_sent_event"] = False
        return super().as_task_v2(*bound.args[1:], **bound.kwargs)


class RedactedRequest(SettledRequest):
    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self._argsrepr = "()" if not self._args else f"({len(self._args)} positional)"
        self._kwargsrepr = redact_arguments_for_search(self._kwargs)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002 - Celery's signature
        return super().info(safe=True)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name for it
        if type == "task-succeeded":
            fields["result"] = redact_answer(str(fields.get("result")))
        if self.task.send_events:
            super().send_event(type, **fields)
        elif self._eventer and self._eventer.enabled and type != "task-started":
            if type == "task-succeeded" and not re.search(r"=[1-9]", fields["result"]):
                return
            task_fields = {"name": self.name, "args": self._argsrepr, "kwargs": self._kwargsrepr, "uuid": self.id}
            start = {"timestamp": self.time_start} if self.time_start else {}
            self._eventer.send("task-received", root_id=self.root_id, parent_id=self.parent_id, **task_fields, **start)
            self._eventer.send(type, uuid=self.id, **fields)
