"""Good arguments of every command, from its declaration, and the bad values for each kind of argument."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from tasks.declarations import Declaration, all_commands

COMMANDS = all_commands()
MARK = "ZZQ7"
"""Stands in every text that is sent, so that an answer which repeats one is found out."""

NUMBERS = itertools.count(1)

LINES = [{"line_no": 1, "quantity": 1}]
MARKET = {"member_id": "seller", "seller_id": "seller", "buyer_id": "buyer", "removal_id": 1}
"""Values of the tests' market by argument name, in place of those of the examples."""
FIRST_OF_ITS_KIND: dict[str, dict[str, Any]] = {
    "orders.submit": {"order_id": 2},
    "terms.apply": {"terms": {"STRIKE_LIMIT": 3}},
    "orders.cancel_many": {"orders": [{"order_id": 1003, "member_id": "seller"}]},
}
"""Arguments that change something there, where those of the example would not."""
NOT_GIVEN = ("request_id", "occurred_at", "staff")


def good_arguments(declaration: Declaration) -> dict[str, Any]:
    """Return the arguments of the command's example, in the tests' market, with a value for each that it leaves out."""
    schema = declaration.model.model_json_schema()
    good: dict[str, Any] = _completed(declaration.example, schema, schema.get("$defs", {}))
    return good | FIRST_OF_ITS_KIND.get(declaration.model.task, {})


def _completed(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        return [_completed(item, schema.get("items", {}), definitions) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    given = {
        name: MARKET.get(name) or _completed(inner, properties.get(name, {}), definitions)
        for name, inner in value.items()
    }
    return given | {
        name: True if _is_switch(kind) else kind.get("default")
        for name, kind in properties.items()
        if name not in (*given, *NOT_GIVEN)
    }


def _is_switch(schema: dict[str, Any]) -> bool:
    return schema.get("default") is None and {"type": "boolean"} in schema.get("anyOf", [])


GOOD: dict[str, dict[str, Any]] = {task: good_arguments(COMMANDS[task]) for task in sorted(COMMANDS)}
"""Arguments of each command that fit its model; one of them at a time is replaced by nonsense."""
PUBLIC = sorted(COMMANDS)

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
    "ids": (True, 0, "", MARK, [None], [{}], [""], ["seller"]),
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
    "until": "instant",
    "exclude_buyers": "ids",
    "billing_month": "month",
    "no": "open word",
    "type": "open word",
    "reason": "open word",
    **dict.fromkeys(("amount", "usd_rate", "credit", "coupon", "unit_price", "my_cost", "my_weight"), "amount"),
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
            no_items: tuple[Any, ...] = (None, 0, "" if path[0] == "exclude_buyers" else MARK, [])
            yield from ((path, item) for item in no_items)
            continue
        kind = kind_of(str(path[-1]), good)
        bad: Any
        for bad in (*NEVER, *KINDS.get(kind, ())):
            no_choice_is_one = bad == {} and path[-1] in ("values", "fields")
            any_item_is_answered = isinstance(bad, list) and bad and path == ("orders",)
            if not no_choice_is_one and not any_item_is_answered:
                yield path, bad
