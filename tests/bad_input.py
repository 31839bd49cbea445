"""Good arguments of every public task, and the bad values for each kind of argument."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from workers.app import app
from workers.task import command_model

MARK = "ZZQ7"
"""Stands in every text that is sent, so that an answer which repeats one is found out."""

NUMBERS = itertools.count(1)

LOT: dict[str, Any] = {
    "lot_id": 501,
    "seller_id": "seller",
    "item": {"no": "3001", "type": "PART"},
    "color_id": 5,
    "quantity": 100,
    "new_or_used": "N",
    "unit_price": "1.0000",
    "completeness": None,
    "bind_id": 0,
    "description": "",
    "remarks": "",
    "bulk": 1,
    "is_retain": False,
    "is_stock_room": False,
    "stock_room_id": None,
    "my_cost": None,
    "my_weight": None,
    "sale_rate": 0,
    "tier_quantity1": None,
    "tier_quantity2": None,
    "tier_quantity3": None,
    "tier_price1": None,
    "tier_price2": None,
    "tier_price3": None,
    "reserved_for": None,
}
PARTY = {"order_id": 1003, "member_id": "seller"}
LINES = [{"line_no": 1, "quantity": 1}]
WANTED = [{"lot_id": 501, "quantity": 1}]
STAFF = {"staff": "kim", "comment": "looked into it"}
GOOD: dict[str, dict[str, Any]] = {
    "bills.record_payment": {"seller_id": "seller", "billing_month": "2026-03", "amount": "1.00", "payment_id": "p-1"},
    "credits.post_manual": {"seller_id": "seller", "amount": "1.00", "order_id": 1003, **STAFF},
    "drafts.edit": {"draft_id": "d-1", "member_id": "seller", "lines": [{"line_no": 1, "delete": True}]},
    "drafts.open": {**PARTY, "consolidate": True, "values": {"price": "old"}},
    "drafts.verify": {"draft_id": "d-1", "member_id": "seller"},
    "inventory.record_lot": {"lot": LOT},
    "members.record": {
        "member_id": "seller",
        "handle": "Sam",
        "email": "sam@example.org",
        "time_zone": "Europe/Berlin",
    },
    "members.reinstate": {"member_id": "seller", **STAFF},
    "members.terminate": {"member_id": "seller", **STAFF},
    "npb.accept_penalty": PARTY,
    "npb.file": PARTY | {"comment": "not paid"},
    "npb.remove": PARTY | {"comment": "paid"},
    "npb.respond": PARTY | {"comment": "will pay"},
    "npb.take_back": PARTY,
    "nrs.file": PARTY | {"comment": "silent"},
    "nrs.remove": PARTY | {"comment": "answered"},
    "nrs.respond": PARTY | {"comment": "here"},
    "nss.file": PARTY | {"grounds": "INCOMPLETE", "comment": "half"},
    "nss.remove": PARTY | {"comment": "came"},
    "nss.respond": PARTY | {"comment": "sent"},
    "ocr.decline": PARTY,
    "ocr.file": PARTY | {"reason": "S_MUTUAL", "comment": "agreed"},
    "ocr.withdraw": PARTY,
    "orders.add_batch": {"order_id": 1003, "lines": WANTED},
    "orders.cancel": PARTY | {"reason": "S_MUTUAL", "comment": "agreed", "draft_id": "d-1", "dry_run": False},
    "orders.cancel_many": {"orders": [PARTY]},
    "orders.options": PARTY,
    "orders.record_payment": {"order_id": 1003, "payment_status": "Sent"},
    "orders.settle_late_payment": PARTY | {"comment": "sent back"},
    "orders.set_status": PARTY | {"status": "READY"},
    "orders.submit": {
        "order_id": 2,
        "buyer_id": "buyer",
        "seller_id": "seller",
        "currency": "EUR",
        "usd_rate": "1.1",
        "lines": WANTED,
    },
    "removals.approve": {"removal_id": 1, "member_id": "seller", "return_items": True},
    "removals.deny": {"removal_id": 1, "member_id": "seller"},
    "removals.request": PARTY | {"lines": LINES, "return_items": True},
    "removals.withdraw": {"removal_id": 1, "member_id": "seller"},
    "terms.apply": {"terms": {"STRIKE_LIMIT": 3}, "from": "2027-01-01T00:00:00Z", "staff": "kim"},
}
"""Arguments of each public task that fit its model; one of them at a time is replaced by nonsense."""

PUBLIC = sorted(name for name, task in app.tasks.items() if not name.startswith("celery.") and command_model(task))

NEVER: tuple[Any, ...] = (
    float("nan"),
    1.5,
    -0.0,
    10**30,
    -(2**63) - 1,
    {},
    {"a": {"b": MARK}},
    [[MARK]],
    f"{MARK}\x00",
    f"{MARK}\ud800",
    MARK * 2_500_000,  # ten million characters
    # What kombu's serializer writes for values that JSON has no type for, and what it would fail to read.
    {"__type__": "uuid", "__value__": {"hex": "0" * 32, "version": 4}},
    {"__type__": "decimal", "__value__": "1.00"},
    {"__type__": "datetime", "__value__": "2027-01-01T00:00:00+00:00"},
    {"__type__": "bytes", "__value__": MARK},
    {"__type__": [MARK], "__value__": MARK},
)
"""No argument of any kind can be one of these."""
DEEP: Any = []
for _ in range(50_000):
    DEEP = [DEEP]
NO_NUMBER: tuple[Any, ...] = (
    True, "1", "", " ", MARK, "NaN", "1e9", [], -1, 2**63, "'; DROP TABLE orders; --" + MARK, f"{{{{7*7}}}}{MARK}",
)  # fmt: skip
NO_ID: tuple[Any, ...] = (
    *(bad for bad in NO_NUMBER if bad != "1" or bad is True), "01", "-1", "+1", "1.0", "1_0", "٣", "0x10", " 1",
    "1\n", str(2**63), "1" * 40,
)  # fmt: skip
NO_AMOUNT: tuple[Any, ...] = (
    True, 1, 0, -1, "", " ", "NaN", "Infinity", "1e9", "-0", "1,00", "0x10", " 1", "+1", "1.", ".5", "1_0", "٣",
    "1" * 40, "1.123456789", MARK, [],
)  # fmt: skip
NO_SWITCH: tuple[Any, ...] = (0, 1, "true", "", MARK, [])
NO_WORD: tuple[Any, ...] = (
    True,
    0,
    [],
    "",
    f"{MARK}\r\nBcc: all@example.org",
    f"<script>{MARK}</script>",
    "\u202e" + MARK,
)
NO_LIST: tuple[Any, ...] = (True, 0, "", MARK, [], [None], [MARK], [{}], [{"surprise": MARK}])
NO_OBJECT: tuple[Any, ...] = (True, 0, "", MARK, [], None, {"surprise": MARK})
NO_INSTANT: tuple[Any, ...] = (
    True, 0, "", MARK, "2026-03-28", "2026-03-28T10:00:00", "2026-03-28T24:00:00Z", "2026-03-28T10:00:60Z",
    "2026-02-30T10:00:00Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", [],
)  # fmt: skip
KINDS: dict[str, tuple[Any, ...]] = {
    "number": NO_NUMBER,
    "id": NO_ID,
    "amount": NO_AMOUNT,
    "switch": NO_SWITCH,
    "list": NO_LIST,
    "object": NO_OBJECT,
    "instant": NO_INSTANT,
    "text": (True, 0, [], MARK * 501),  # 2,004 characters
    "name": (True, 0, [], "", " ", "x" * 65, MARK * 17, f"{MARK}\r\nBcc: all@example.org", f"{MARK}\x1b[31m", "\x7f"),
    "word": NO_WORD,
    "month": (True, 0, "", "2026-13", "2026-3", "26-03", "2026-03-01", "٢٠٢٦-٠٣", MARK, []),
    "request": (0, True, "", "with space", "line\nbreak", "../x/" + MARK, "x" * 129, "😀", []),
}
NAMES = ("member_id", "seller_id", "buyer_id", "staff", "draft_id", "handle", "payment_id", "reserved_for")
WORDS = ("status", "payment_status", "grounds", "new_or_used", "completeness", "stock_room_id", "currency",
         "price", "email", "time_zone")  # fmt: skip
TEXTS = ("comment", "description", "remarks")


BY_NAME = {
    **dict.fromkeys(("order_id", "lot_id", "removal_id", "bind_id"), "id"),
    "request_id": "request",
    "from": "instant",
    "occurred_at": "instant",
    "billing_month": "month",
    "no": "open word",
    "type": "open word",
    "reason": "open word",
    **dict.fromkeys(("amount", "usd_rate", "unit_price", "my_cost", "my_weight"), "amount"),
    **dict.fromkeys(("tier_price1", "tier_price2", "tier_price3"), "amount"),
    **dict.fromkeys(NAMES, "name"),
    **dict.fromkeys(WORDS, "word"),
    **dict.fromkeys(TEXTS, "text"),
}


def kind_of(name: str, good: Any) -> str:
    by_type = {bool: "switch", list: "list", dict: "object"}
    return BY_NAME.get(name) or by_type.get(type(good), "number")


def argument_paths(arguments: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every argument and everything nested in one, as (path, good value)."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((name,), value) for name, value in arguments.items()]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict):
            waiting.extend(((*path, name), inner) for name, inner in value.items())
        if isinstance(value, list):
            waiting.extend(((*path, index), inner) for index, inner in enumerate(value))


def replace_argument(arguments: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(arguments)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


def bad_arguments(arguments: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for path, good in argument_paths(arguments):
        if isinstance(path[-1], int):
            no_items: tuple[Any, ...] = (None, 0, MARK, [])
            yield from ((path, item) for item in no_items)
            continue
        kind = kind_of(str(path[-1]), good)
        bad: Any
        for bad in (*NEVER, *KINDS.get(kind, ())):
            no_choice_is_one = bad == {} and path == ("values",)
            any_item_is_answered = isinstance(bad, list) and bad and path == ("orders",)
            if not no_choice_is_one and not any_item_is_answered:
                yield path, bad
