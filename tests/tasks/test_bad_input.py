"""What happens to nonsense?  It is answered, naming each argument and never its value, and nothing is changed by it.

The list of promises.md ("Bad input"), for every public task that is registered and every argument of its model, nested
ones too; and Hypothesis over whole sets of arguments made from the models' own schemas.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.command import ActorCommand, Command, understood
from tests.plugins.market import ORDERED, Market
from tests.plugins.servers import fresh_database
from workers.app import app
from workers.job import command_of
from workers.servers import ServerUrls
from workers.stage import Stage

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

PUBLIC = sorted(name for name, task in app.tasks.items() if not name.startswith("celery.") and command_of(task))

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
)
"""No argument of any kind can be one of these."""
DEEP: Any = []
for _ in range(50_000):
    DEEP = [DEEP]
NO_NUMBER: tuple[Any, ...] = (
    True, "1", "", " ", MARK, "NaN", "1e9", [], -1, 2**63, "'; DROP TABLE orders; --" + MARK, f"{{{{7*7}}}}{MARK}",
)  # fmt: skip
NO_AMOUNT: tuple[Any, ...] = (
    True, 1, 0, -1, "", " ", "NaN", "Infinity", "1e9", "-0", "1,00", "0x10", " 1", "+1", "1.", ".5", "1_0", "٣", "1" * 40,
    "1.123456789", MARK, [],
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
WORDS = ("status", "payment_status", "grounds", "new_or_used", "completeness", "stock_room_id", "currency", "price", "email",
         "time_zone")  # fmt: skip
TEXTS = ("comment", "description", "remarks")


BY_NAME = {
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
    """What an argument is, by its name or the good value it has."""
    by_type = {bool: "switch", list: "list", dict: "object"}
    return BY_NAME.get(name) or by_type.get(type(good), "number")


def places(arguments: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every argument and everything nested in one, as (path, good value)."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((name,), value) for name, value in arguments.items()]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict):
            waiting.extend(((*path, name), inner) for name, inner in value.items())
        if isinstance(value, list):
            waiting.extend(((*path, index), inner) for index, inner in enumerate(value))


def replaced(arguments: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The arguments with another value at that place."""
    changed = copy.deepcopy(arguments)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


def nonsense(arguments: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each argument with everything it must never be."""
    for path, good in places(arguments):
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


@pytest.fixture(scope="module")
def counted(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Market]:
    """One market for all of this: nothing that is tried here may change it, so nobody needs another."""
    with fresh_database(servers, admin, template_database) as url, Stage(url) as stage:
        stage.clock.instant = ORDERED
        market = Market(stage)
        market.order(1003, [(market.lot(), 10)])
        market.done("removals.request", order_id=1003, member_id="buyer", lines=LINES)
        yield market


def ask(market: Market, task: str, arguments: dict[str, Any], message_id: str = "m-1") -> dict[str, Any]:
    """The answer to one message."""
    return market.stage.carry_out(task, arguments, message_id)


def fingerprint(market: Market) -> dict[str, str]:
    """What every table holds, but for the answers that were given."""
    names = [
        r.table_name
        for r in market.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'unwind'")
        if r.table_name not in ("requests", "command_answers", "alembic_version")
    ]
    asked = " UNION ALL ".join(
        f"SELECT '{name}' AS name, md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) AS held FROM unwind.{name} t"  # noqa: S608
        for name in sorted(names)
    )
    return {r.name: r.held for r in market.rows(asked)}


def test_every_public_task_has_good_arguments_here() -> None:
    """A task that is added without them would not be tried."""
    assert sorted(GOOD) == PUBLIC


@pytest.mark.parametrize("task", PUBLIC)
def test_the_good_arguments_are_understood(task: str) -> None:
    """Else the nonsense would be refused for another reason."""
    model = command_of(app.tasks[task])
    assert model is not None
    assert isinstance(understood(model, copy.deepcopy(GOOD[task]), "m-1"), model)


@pytest.mark.parametrize("task", PUBLIC)
def test_nonsense_in_any_argument_is_named_and_changes_nothing(counted: Market, task: str) -> None:
    """promises.md "Bad input": `invalid` with the path and a sentence, no value echoed, no row changed."""
    before = fingerprint(counted)
    arguments = GOOD[task] | {"request_id": f"r-{next(NUMBERS)}"}
    if command_of(app.tasks[task]).model_fields.get("occurred_at"):  # type: ignore[union-attr]  # public: it has a model
        arguments["occurred_at"] = "2026-03-28T10:00:00Z"
    for path, bad in nonsense(arguments):
        what = (task, path, repr(bad)[:60])
        answer = ask(counted, task, replaced(arguments, path, bad))
        if task == "orders.cancel_many" and path[0] == "orders" and len(path) > 1:
            assert answer["outcome"] == "done", what  # each item has an answer of its own
            (answer,) = answer["effects"]["answers"]
            assert answer["outcome"] in ("invalid", "refused"), what
            arguments["request_id"] = f"r-{next(NUMBERS)}"
        else:
            assert answer["outcome"] == "invalid", (*what, answer)
            assert answer["errors"], what
        for error in answer["errors"]:
            assert error["path"], (*what, error)
            assert error["message"], (*what, error)
            assert MARK not in error["message"], (*what, error)
        assert MARK not in answer["message"], what
        if answer["outcome"] == "invalid" and task != "orders.cancel_many":
            written = ".".join(map(str, path))
            named = {error["path"] for error in answer["errors"]}
            either = {"member_id", "staff"} if path[-1] in ("member_id", "staff") else set()
            assert named & either or any(one.startswith(written.split(".")[0]) for one in named), (*what, named)
    assert fingerprint(counted) == before


@pytest.mark.parametrize("task", PUBLIC)
def test_missing_and_superfluous_arguments_are_named(counted: Market, task: str) -> None:
    """Contract 2: a missing argument is `invalid`, and so is one that nobody knows."""
    before = fingerprint(counted)
    model = command_of(app.tasks[task])
    assert model is not None
    needed = {f.alias or name for name, f in model.model_fields.items() if f.is_required() and name != "request_id"}
    for name in needed:
        answer = ask(counted, task, {k: v for k, v in GOOD[task].items() if k != name})
        assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", [name])
    for extra in ("surprise", "commands", "self", "args", "task", "é", "x" * 5_000, "\ud800", "\x00", ""):
        answer = ask(counted, task, {**GOOD[task], extra: MARK})
        assert answer["outcome"] == "invalid", (extra[:20], answer)
        assert MARK not in json.dumps(answer), extra[:20]
        assert len(json.dumps(answer)) < 2_000, "an unknown argument's name is not repeated at any length"
    assert ask(counted, task, {})["outcome"] == "invalid"
    assert fingerprint(counted) == before


@pytest.mark.parametrize("task", [t for t in PUBLIC if issubclass(command_of(app.tasks[t]) or Command, ActorCommand)])
def test_an_actor_is_one_party_or_staff(counted: Market, task: str) -> None:
    """Contract 2: exactly one of the two, never both and never neither."""
    before = fingerprint(counted)
    without = {name: value for name, value in GOOD[task].items() if name not in ("member_id", "staff")}
    for actor in ({}, {"member_id": "seller", "staff": "kim"}, {"member_id": None, "staff": None}):
        answer = ask(counted, task, without | actor)
        assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", ["member_id"])
    assert fingerprint(counted) == before


@pytest.mark.parametrize("task", [t for t in PUBLIC if "lines" in GOOD[t] or "orders" in GOOD[t]])
def test_a_hundred_thousand_lines_are_refused_at_once(counted: Market, task: str) -> None:
    """promises.md: a list is measured before it is read."""
    name = "lines" if "lines" in GOOD[task] else "orders"
    began = time.monotonic()
    answer = ask(counted, task, GOOD[task] | {name: GOOD[task][name] * 100_000})
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", [name])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("task", PUBLIC)
def test_deep_nesting_harms_nobody(counted: Market, task: str) -> None:
    """promises.md: fifty thousand levels are no command."""
    for name in GOOD[task]:
        answer = ask(counted, task, GOOD[task] | {name: DEEP})
        assert answer["outcome"] == "invalid", (task, name, answer["outcome"])


@pytest.mark.parametrize(
    "said",
    [
        "'; DROP TABLE unwind.orders; --",
        "{{7*7}} ${jndi:ldap://example.org/a} %s%n",
        "<script>alert(1)</script>",
        "first line\r\nBcc: everybody@example.org\r\n\r\n<h1>second</h1>",
        "\u202eright to left\u202c and \u200b\u0301\u0301\u0301 and 😀",
        "\x1b[31mred\x07",
        "x" * 2_000,
    ],
)
def test_hostile_words_in_a_comment_are_only_words(counted: Market, said: str) -> None:
    """C42 to C44: kept as they are, and nothing that they say happens."""
    counted.done("ocr.file", order_id=1003, member_id="buyer", reason="B_MUTUAL", comment=said)
    assert counted.row("SELECT comment FROM unwind.ocrs ORDER BY ocr_id DESC LIMIT 1").comment == said
    counted.done("ocr.decline", order_id=1003, member_id="seller")
    assert counted.row("SELECT count(*) AS n FROM unwind.orders").n == 1


def test_staff_that_looks_like_a_member_is_staff(counted: Market) -> None:
    """promises.md: the name of staff is free text and gives nobody a party's rights."""
    assert counted.code("npb.accept_penalty", order_id=1003, staff="buyer") == "WRONG_ROLE"
    assert counted.code("orders.cancel", order_id=1003, staff="seller") == "WRONG_ROLE"


def anything(model: type[Command]) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments by the names that the model knows, each good, hostile, or anything JSON can say."""
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )
    hostile = st.sampled_from([*NEVER[:-1], *NO_NUMBER, *NO_AMOUNT, *NO_INSTANT])
    good = GOOD[model.task]
    names = [f.alias or name for name, f in model.model_fields.items()]
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(st.just(good.get(name)), hostile, json_values) for name in names}
    )


@pytest.mark.parametrize("task", PUBLIC)
def test_any_arguments_at_all_get_an_answer(counted: Market, task: str) -> None:
    """Contract 2.1: a public task never raises for bad input, and every answer has the same shape."""
    model = command_of(app.tasks[task])
    assert model is not None
    shape = {"outcome", "code", "message", "request_id", "order_id", "possible_from", "errors", "effects", "replayed"}

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(arguments=anything(model))
    def fuzz(arguments: dict[str, Any]) -> None:
        answer = ask(counted, task, arguments, f"fuzz-{next(NUMBERS)}")
        assert set(answer) == shape
        assert answer["outcome"] in ("done", "refused", "invalid", "conflict")
        assert bool(answer["errors"]) == (answer["outcome"] == "invalid"), answer
        assert (answer["code"] is None) == (answer["outcome"] in ("done", "invalid")), answer
        json.dumps(answer)

    fuzz()
    counted.stage.settle()
    assert not counted.rows("SELECT 1 FROM unwind.dead_jobs")
