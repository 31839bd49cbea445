"""What of a message may be seen by people who only look?  Ids and codes; never comments, addresses or money.

Flower, events and logs show the `argsrepr` and `kwargsrepr` of a message, and a producer puts there what it likes.  So
our producers write them from an allow-list, and our workers rewrite them for messages from elsewhere (reliability F64).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from celery.app.amqp import AMQP
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

SHOWN = (
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
COUNTED = ("orders", "rows", "lines")
_PLAIN = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


def shown_arguments(arguments: Any) -> str:
    """`order_id=1003 member_id=s-881`: what is on the list and looks like an id or a code; lists by their length."""
    if not isinstance(arguments, Mapping):
        return ""
    said = [f"{name}={arguments[name]}" for name in SHOWN if name in arguments and _is_plain(arguments[name])]
    said += [f"{name}={len(arguments[name])}" for name in COUNTED if isinstance(arguments.get(name), list)]
    return " ".join(said)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _PLAIN.fullmatch(value) is not None
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)


_AS_TASK = inspect.signature(AMQP.as_task_v2)


class ShownMessages(AMQP):
    """Writes messages whose representation shows ids and codes only."""

    def as_task_v2(self, *positional: Any, **named: Any) -> Any:
        """Celery's own message, with our representation; Celery gives the arguments by place."""
        given = _AS_TASK.bind(self, *positional, **named)
        given.arguments["argsrepr"] = "()"
        given.arguments["kwargsrepr"] = shown_arguments(given.arguments.get("kwargs"))
        return super().as_task_v2(*given.args[1:], **given.kwargs)


class ShownRequest(Request):
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
        self._kwargsrepr = shown_arguments(self._kwargs)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)
