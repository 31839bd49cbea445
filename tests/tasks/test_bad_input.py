"""Bad input to every public task: each bad argument is named, no value is echoed, nothing changes."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.db.named_locks import NamedLockRow
from models.ocr import OcrRow
from models.orders import OrderRow
from models.stored_answers import Answer, RequestRow
from tasks.command import ActorCommand, Command
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from tests.bad_input import (
    DEEP,
    GOOD,
    LINES,
    MARK,
    NEVER,
    NO_AMOUNT,
    NO_INSTANT,
    NO_NUMBER,
    NUMBERS,
    PUBLIC,
    bad_arguments,
    replace_argument,
)
from tests.plugins.market import ORDERED, Market
from tests.plugins.servers import fresh_database
from workers.embedded.client import ServerUrls
from workers.simulation.engine import Simulation


@pytest.fixture(scope="module")
def shared_market(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Market]:
    with fresh_database(servers, admin, template_database) as url, Simulation(url) as simulation:
        simulation.clock.instant = ORDERED
        market = Market(simulation)
        market.order(1003, [(market.lot(), 10)])
        market.done("removals.request", order_id=1003, member_id="buyer", lines=LINES)
        yield market


def ask(market: Market, task: str, arguments: dict[str, Any], message_id: str = "m-1") -> dict[str, Any]:
    return market.simulation.execute(task, arguments, message_id)


def content(market: Market) -> dict[str, list[str]]:
    """All rows except the stored answers and the lock rows, which hold nothing."""
    return market.content_except(RequestRow, NamedLockRow)


def test_every_public_task_has_valid_arguments() -> None:
    assert sorted(GOOD) == PUBLIC


@pytest.mark.parametrize("task", PUBLIC)
def test_the_valid_arguments_are_valid(task: str) -> None:
    model = COMMANDS[task].model
    assert isinstance(parse_command(model, copy.deepcopy(GOOD[task]), "m-1"), model)


@pytest.mark.parametrize("task", PUBLIC)
def test_a_bad_argument_is_named_and_changes_nothing(shared_market: Market, task: str) -> None:
    before = content(shared_market)
    arguments = GOOD[task] | {"request_id": f"r-{next(NUMBERS)}"}
    if COMMANDS[task].model.model_fields.get("occurred_at"):
        arguments["occurred_at"] = "2026-03-28T10:00:00Z"
    for path, bad in bad_arguments(arguments):
        context = (task, path, repr(bad)[:60])
        answer = ask(shared_market, task, replace_argument(arguments, path, bad))
        if task == "orders.cancel_many" and path[0] == "orders" and len(path) > 1:
            assert answer["outcome"] == "done", context  # each item has an answer of its own
            (answer,) = answer["effects"]["answers"]
            assert answer["outcome"] in ("invalid", "refused"), context
            arguments["request_id"] = f"r-{next(NUMBERS)}"
        else:
            assert answer["outcome"] == "invalid", (*context, answer)
            assert answer["errors"], context
        for error in answer["errors"]:
            assert error["path"], (*context, error)
            assert error["message"], (*context, error)
            assert MARK not in error["message"], (*context, error)
        assert MARK not in answer["message"], context
        if answer["outcome"] == "invalid" and task != "orders.cancel_many":
            path_text = ".".join(map(str, path))
            paths = {error["path"] for error in answer["errors"]}
            either = {"member_id", "staff"} if path[-1] in ("member_id", "staff") else set()
            assert paths & either or any(bulk_answer.startswith(path_text.split(".")[0]) for bulk_answer in paths), (
                *context,
                paths,
            )
    assert content(shared_market) == before


OUR_WORDS = re.compile(r"(must (be|have|not) |is missing|has a form that|there is no such )[^\n]*")


@pytest.mark.parametrize("task", PUBLIC)
def test_errors_are_in_our_words(task: str) -> None:
    model = COMMANDS[task].model
    for path, bad in bad_arguments(GOOD[task] | {"request_id": "r-1"}):
        answer = parse_command(model, replace_argument(GOOD[task], path, bad), "m-1")
        for error in answer.errors if isinstance(answer, Answer) else ():
            assert OUR_WORDS.fullmatch(error["message"]), (task, path, error)


@pytest.mark.parametrize("task", PUBLIC)
def test_all_missing_arguments_are_named_at_once_with_the_actor(task: str) -> None:
    model = COMMANDS[task].model
    needed = {f.alias or name for name, f in model.model_fields.items() if f.is_required()} - {"request_id"}
    answer = parse_command(model, {}, "m-1")
    assert isinstance(answer, Answer)
    actor = {"member_id"} if issubclass(model, ActorCommand) else set()
    assert {error["path"] for error in answer.errors} == needed | actor


def test_an_id_of_a_wrong_type_is_an_error_about_an_id() -> None:
    answer = parse_command(COMMANDS["npb.file"].model, {"order_id": "1e3", "member_id": 5}, "m-1")
    assert isinstance(answer, Answer)
    assert {error["path"]: error["message"] for error in answer.errors} == {
        "order_id": "must be an id: a whole number, or its digits as text",
        "member_id": "must be text",
    }


@pytest.mark.parametrize(
    ("task", "arguments", "sentence"),
    [
        ("npb.file", {"order_id": 77, "member_id": "seller"}, "There is no order 77."),
        ("npb.file", {"order_id": 1003, "member_id": "nobody"}, "There is no member nobody."),
        ("removals.deny", {"removal_id": 99, "member_id": "seller"}, "There is no removal request 99."),
        ("drafts.verify", {"draft_id": "d-9", "member_id": "seller"}, "There is no draft d-9."),
        ("members.terminate", {"member_id": "nobody", "staff": "kim", "comment": "x"}, "There is no member nobody."),
    ],
)
def test_an_unknown_id_is_repeated(shared_market: Market, task: str, arguments: dict[str, Any], sentence: str) -> None:
    assert ask(shared_market, task, arguments, f"unknown-{next(NUMBERS)}")["message"] == sentence


@pytest.mark.parametrize("task", PUBLIC)
def test_missing_and_unknown_arguments_are_named(shared_market: Market, task: str) -> None:
    before = content(shared_market)
    model = COMMANDS[task].model
    needed = {f.alias or name for name, f in model.model_fields.items() if f.is_required() and name != "request_id"}
    for name in needed:
        answer = ask(shared_market, task, {k: v for k, v in GOOD[task].items() if k != name})
        assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", [name])
    for extra in ("surprise", "commands", "self", "args", "task", "é", "x" * 5_000, "\ud800", "\x00", ""):
        answer = ask(shared_market, task, {**GOOD[task], extra: MARK})
        assert answer["outcome"] == "invalid", (extra[:20], answer)
        assert MARK not in json.dumps(answer), extra[:20]
        assert len(json.dumps(answer)) < 2_000, "an unknown argument's name is not repeated at any length"
    assert ask(shared_market, task, {})["outcome"] == "invalid"
    assert content(shared_market) == before


@pytest.mark.parametrize("task", [t for t in PUBLIC if issubclass(COMMANDS[t].model, ActorCommand)])
def test_an_actor_is_one_party_or_staff(shared_market: Market, task: str) -> None:
    before = content(shared_market)
    without = {name: value for name, value in GOOD[task].items() if name not in ("member_id", "staff")}
    for actor in ({}, {"member_id": "seller", "staff": "kim"}, {"member_id": None, "staff": None}):
        answer = ask(shared_market, task, without | actor)
        assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", ["member_id"])
    assert content(shared_market) == before


@pytest.mark.parametrize("task", [t for t in PUBLIC if "lines" in GOOD[t] or "orders" in GOOD[t]])
def test_a_hundred_thousand_lines_are_refused_at_once(shared_market: Market, task: str) -> None:
    name = "lines" if "lines" in GOOD[task] else "orders"
    began = time.process_time()
    answer = ask(shared_market, task, GOOD[task] | {name: GOOD[task][name] * 100_000})
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", [name])
    assert time.process_time() - began < 5


@pytest.mark.parametrize("task", PUBLIC)
def test_deeply_nested_arguments_are_invalid(shared_market: Market, task: str) -> None:
    for name in GOOD[task]:
        answer = ask(shared_market, task, GOOD[task] | {name: DEEP})
        assert answer["outcome"] == "invalid", (task, name, answer["outcome"])


@pytest.mark.parametrize(
    "comment",
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
def test_hostile_text_in_a_comment_is_stored_as_text(shared_market: Market, comment: str) -> None:
    shared_market.done("ocr.file", order_id=1003, member_id="buyer", reason="B_MUTUAL", comment=comment)
    assert shared_market.stored(OcrRow)[-1].comment == comment
    shared_market.done("ocr.decline", order_id=1003, member_id="seller")
    assert shared_market.count(OrderRow) == 1


def test_staff_named_like_a_member_has_no_party_rights(shared_market: Market) -> None:
    assert shared_market.code("npb.accept_penalty", order_id=1003, staff="buyer") == "WRONG_ROLE"
    assert shared_market.code("orders.cancel", order_id=1003, staff="seller") == "WRONG_ROLE"


def anything(model: type[Command]) -> st.SearchStrategy[dict[str, Any]]:
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
def test_any_arguments_get_an_answer(shared_market: Market, task: str) -> None:
    model = COMMANDS[task].model
    shape = {"outcome", "code", "message", "request_id", "order_id", "possible_from", "errors", "effects", "replayed"}

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(arguments=anything(model))
    def fuzz(arguments: dict[str, Any]) -> None:
        answer = ask(shared_market, task, arguments, f"fuzz-{next(NUMBERS)}")
        assert set(answer) == shape
        assert answer["outcome"] in ("done", "refused", "invalid", "conflict")
        assert bool(answer["errors"]) == (answer["outcome"] == "invalid"), answer
        assert (answer["code"] is None) == (answer["outcome"] in ("done", "invalid")), answer
        json.dumps(answer)

    fuzz()
    shared_market.simulation.process_outbox()
    assert shared_market.dead_jobs() == []


LARGE = 2**53 + 1
"""JavaScript has no such number: written as one it arrives as another."""


def _as_texts(value: Any) -> Any:
    ids = ("order_id", "lot_id", "removal_id", "bind_id")
    if isinstance(value, list):
        return [_as_texts(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {name: str(inner) if name in ids else _as_texts(inner) for name, inner in value.items()}


@pytest.mark.parametrize("task", [task for task in PUBLIC if _as_texts(GOOD[task]) != GOOD[task]])
def test_an_id_written_as_text_is_the_same_command(task: str) -> None:
    model = COMMANDS[task].model
    number, path_text = (parse_command(model, arguments, "m-1") for arguments in (GOOD[task], _as_texts(GOOD[task])))
    assert isinstance(number, model)
    assert isinstance(path_text, model)
    assert path_text.fingerprint == number.fingerprint
    assert path_text.subject == number.subject


def test_ids_above_two_to_the_53_go_as_texts_through_every_command(market: Market) -> None:
    lot = market.lot(quantity=10)
    facts = {"buyer_id": "buyer", "seller_id": "seller"}
    first = market.do("orders.submit", order_id=str(LARGE), lines=[{"lot_id": str(lot), "quantity": 1}],
                        request_id="as-text", **facts)  # fmt: skip
    again = market.do("orders.submit", order_id=LARGE, lines=[{"lot_id": lot, "quantity": 1}],
                        request_id="as-text", **facts)  # fmt: skip
    assert (first["outcome"], first["order_id"]) == ("done", LARGE)
    assert again == first | {"replayed": True}
    many = [{"order_id": str(LARGE), "member_id": "seller", "dry_run": True}]
    bulk_answer = market.do("orders.cancel_many", orders=many, request_id="many")
    second = market.do("orders.cancel_many", orders=[many[0] | {"order_id": LARGE}], request_id="many")
    assert (bulk_answer["outcome"], second["outcome"], second["replayed"]) == ("done", "done", True)
