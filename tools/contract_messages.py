"""Example messages, one for every public task, and example answers, one of each outcome.

The messages are what any client of Celery's message protocol, version 2, pushes onto the Redis list `commands`. A test
sends every one of them to a real worker.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any

from models.stored_answers import Answer
from policies.verdicts import Code
from tasks.declarations import COMMANDS

ANSWERS: dict[str, Answer] = {
    "done": Answer(
        "done",
        "nightly-1003",
        "Done.",
        order_id=1003,
        effects={
            "basis": "NPB",
            "lines": [{"line_no": 1, "returned": 10, "lot_id": 501, "note": None}],
            "removals_cancelled": 0,
            "fee": {"kind": "reset", "amount": "-0.60", "bill": "2026-03"},
        },
    ),
    "refused": Answer(
        "refused",
        "nightly-1003",
        "The alert was filed on 2026-04-04T10:00:00Z and the buyer has not answered, so order 1003 can be "
        "cancelled from 2026-04-11T10:00:00Z; ask again then, under a new request id.",
        Code.TOO_EARLY,
        1003,
        "2026-04-11T10:00:00Z",
    ),
    "invalid": Answer(
        "invalid",
        "nightly-1003",
        "The arguments do not fit; `errors` names each.",
        errors=[{"path": "order_id", "message": "is missing"}],
    ),
    "conflict": Answer(
        "conflict",
        "nightly-1003",
        "This request id was used before for something else; use a new one for a new command.",
        Code.REQUEST_ID_REUSED,
        1003,
    ),
}
"""One answer of each outcome."""


def arguments_of(task: str) -> dict[str, Any]:
    """The example arguments of a task, with a request id."""
    return dict(COMMANDS[task].example) | {"request_id": f"example-{task}"}


def envelope(task: str, arguments: Mapping[str, Any], message_id: str, tag: str) -> dict[str, Any]:
    """The message as stored in Redis, from a client that waits for the answer."""
    body = json.dumps([[], dict(arguments), {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "js",
            "task": task,
            "id": message_id,
            "root_id": message_id,
            "parent_id": None,
            "group": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "()",
            "kwargsrepr": "",
            "origin": "storefront",
            "ignore_result": False,
        },
        "properties": {
            "correlation_id": message_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "commands"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }


def example(task: str) -> dict[str, Any]:
    """The example of a task: its readable arguments, and the message that contains them."""
    message_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"unwind:{task}"))
    tag = str(uuid.uuid5(uuid.NAMESPACE_URL, f"unwind:{task}:delivery"))
    arguments = arguments_of(task)
    return {"task": task, "arguments": arguments, "message": envelope(task, arguments, message_id, tag)}
