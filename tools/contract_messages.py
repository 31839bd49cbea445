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

from models.requests import Answer
from policies.verdicts import Code

_WHO: dict[str, Any] = {"order_id": 1003, "member_id": "s-881"}
_BUYER: dict[str, Any] = {"order_id": 1003, "member_id": "b-77"}
_STAFF: dict[str, Any] = {"member_id": "s-881", "staff": "Kim, support"}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "bills.record_payment": {
        "seller_id": "s-881",
        "billing_month": "2026-03",
        "amount": "12.40",
        "payment_id": "pay-20260407-1",
    },
    "credits.post_manual": {
        "seller_id": "s-881",
        "amount": "3.00",
        "order_id": 1003,
        "staff": "Kim, support",
        "comment": "fee of an order that was cancelled by telephone",
    },
    "drafts.edit": {
        "draft_id": "d-1",
        "member_id": "s-881",
        "lines": [{"line_no": 1, "quantity": 8}, {"line_no": 2, "delete": True}],
    },
    "drafts.open": _WHO
    | {"consolidate": True, "values": {"price": "old", "remarks": "concatenate", "cost": "average"}},
    "drafts.verify": {"draft_id": "d-1", "member_id": "s-881"},
    "inventory.record_lot": {
        "lot": {
            "lot_id": 501,
            "seller_id": "s-881",
            "item": {"no": "3001", "type": "PART"},
            "color_id": 5,
            "quantity": 100,
            "new_or_used": "N",
            "unit_price": "0.1000",
        }
    },
    "members.record": {
        "member_id": "s-881",
        "handle": "BrickBarn",
        "email": "barn@example.org",
        "time_zone": "America/New_York",
    },
    "members.reinstate": _STAFF | {"comment": "identity confirmed"},
    "members.terminate": _STAFF | {"comment": "closed at the member's own wish"},
    "npb.accept_penalty": _BUYER,
    "npb.file": _WHO | {"comment": "no payment and no word for ten days"},
    "npb.remove": _WHO,
    "npb.respond": _BUYER | {"comment": "I pay on Friday"},
    "npb.take_back": _BUYER,
    "nrs.file": _BUYER | {"comment": "no invoice, no answer"},
    "nrs.remove": _BUYER,
    "nrs.respond": _WHO | {"comment": "I was away, the invoice is out"},
    "nss.file": _BUYER | {"grounds": "NOT_SHIPPED", "comment": "paid two weeks ago, nothing came"},
    "nss.remove": _BUYER,
    "nss.respond": _WHO | {"comment": "it went out this morning"},
    "ocr.decline": _WHO,
    "ocr.file": _BUYER | {"reason": "B_MUTUAL", "comment": "ordered the wrong colour"},
    "ocr.withdraw": _BUYER,
    "orders.add_batch": {"order_id": 1003, "lines": [{"lot_id": 501, "quantity": 4}]},
    "orders.cancel": _WHO,
    "orders.cancel_many": {
        "orders": [{"order_id": 1003, "member_id": "s-881"}, {"order_id": 1004, "member_id": "s-881", "dry_run": True}]
    },
    "orders.options": _WHO,
    "orders.record_payment": {"order_id": 1003, "payment_status": "Received"},
    "orders.settle_late_payment": _WHO | {"comment": "sent back through the payment service"},
    "orders.set_status": _WHO | {"status": "SHIPPED"},
    "orders.submit": {
        "order_id": 1003,
        "buyer_id": "b-77",
        "seller_id": "s-881",
        "currency": "EUR",
        "usd_rate": "1.0842",
        "lines": [{"lot_id": 501, "quantity": 10}],
    },
    "removals.approve": {"removal_id": 12, "member_id": "b-77"},
    "removals.deny": {"removal_id": 12, "member_id": "b-77"},
    "removals.request": _WHO | {"lines": [{"line_no": 1, "quantity": 2}], "return_items": True},
    "removals.withdraw": {"removal_id": 12, "member_id": "s-881"},
    "terms.apply": {
        "terms": {"NPB_UNLOCK_NO_RESPONSE": "7d"},
        "from": "2027-01-01T00:00:00Z",
        "staff": "Kim, support",
    },
}
"""Keyword arguments of one command per public task."""

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
        "The buyer has one week to pay or to answer.",
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
    return ARGUMENTS[task] | {"request_id": f"example-{task}"}


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
