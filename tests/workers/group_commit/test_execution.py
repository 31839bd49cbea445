"""Tests of the division of a batch into transactions, and of a batch whose commands fail."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from tests.plugins.market import Market
from workers.app import app
from workers.broker.result_backend import ResultBackend
from workers.group_commit import execution
from workers.group_commit.execution import Message, execute_messages, group_commands_to_execute


def divided(*wanted: tuple[str, dict[str, Any]]) -> list[tuple[str, list[int]]]:
    commands, arguments = [], {}
    for index, (task, values) in enumerate(wanted):
        command = parse_command(COMMANDS[task].model, values, f"m{index}")
        assert not hasattr(command, "outcome"), command
        commands.append((index, command))
        arguments[index] = values
    return [(task, [index for index, _ in batch]) for task, batch in group_commands_to_execute(commands, arguments)]


def cancel(order_id: Any, member_id: str = "seller", **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "orders.cancel", {"order_id": order_id, "member_id": member_id} | arguments


def file(order_id: int, member_id: str = "seller") -> tuple[str, dict[str, Any]]:
    return "npb.file", {"order_id": order_id, "member_id": member_id}


def record(member_id: str) -> tuple[str, dict[str, Any]]:
    return "members.record", {"member_id": member_id, "handle": member_id, "email": "a@example.org"}


def test_commands_of_one_kind_about_different_orders_are_one_transaction() -> None:
    assert divided(cancel(1), cancel(2), cancel(3)) == [("orders.cancel", [0, 1, 2])]


def test_no_transaction_has_an_order_or_a_request_id_twice() -> None:
    assert divided(cancel(1), cancel(2), cancel("1")) == [("orders.cancel", [0, 1]), ("orders.cancel", [2])]
    assert divided(cancel(1, request_id="a"), cancel(2, request_id="a")) == [
        ("orders.cancel", [0]),
        ("orders.cancel", [1]),
    ]


def test_kinds_are_grouped_unless_they_are_about_the_same_thing() -> None:
    assert divided(cancel(1, "s1"), file(2, "s2"), cancel(3, "s3"), file(4, "s4")) == [
        ("orders.cancel", [0, 2]),
        ("npb.file", [1, 3]),
    ]
    assert divided(cancel(1, "s1"), file(1, "s1"), cancel(2, "s1")) == [
        ("orders.cancel", [0]),
        ("npb.file", [1]),
        ("orders.cancel", [2]),
    ]


def test_order_of_a_new_member_runs_after_the_member() -> None:
    lines = [{"lot_id": 1, "quantity": 1}]
    submit = ("orders.submit", {"order_id": 1, "buyer_id": "b", "seller_id": "s", "lines": lines})
    other = (
        "orders.submit",
        {"order_id": 2, "buyer_id": "c", "seller_id": "t", "lines": [{"lot_id": 2, "quantity": 1}]},
    )
    assert divided(other, record("b"), submit) == [
        ("orders.submit", [0]),
        ("members.record", [1]),
        ("orders.submit", [2]),
    ]


@pytest.fixture
def results(broker_url: str, result_backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultBackend]:
    monkeypatch.setattr(app, "servers_found", True)
    backend = ResultBackend(app=app, url=result_backend)
    monkeypatch.setattr(app, "_backend_cache", backend)  # comes before the backend of a thread
    monkeypatch.setattr(app.conf, "broker_url", broker_url)
    for task in app.tasks.values():
        monkeypatch.setattr(task, "_backend", None, raising=False)
        monkeypatch.setattr(task, "__trace__", None)
    yield backend
    gc.collect()  # results unsubscribe when they are collected: while the broker still runs


def messages(*wanted: tuple[str, dict[str, Any]]) -> list[Message]:
    return [
        (
            task,
            f"m{index}",
            {"id": f"m{index}", "task": task, "args": [], "kwargs": arguments, "delivery_info": {}, "retries": 0},
            ([], arguments, {}),
            "",
            "",
        )
        for index, (task, arguments) in enumerate(wanted)
    ]


def test_set_is_answered_message_by_message(
    market: Market, results: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, trips = results._set_all, []

    def count(values: dict[Any, Any]) -> None:
        trips.append(len(values))
        store(values)

    monkeypatch.setattr(results, "_set_all", count)
    sent = messages(record("a"), record("b"), ("members.record", {"member_id": 7}), record("c"))
    traces = execute_messages(sent)
    assert [trace and trace[0] for trace in traces] == [0, 0, 0, 0]
    assert trips == [4]
    outcomes = [results.get_result(message[1])["outcome"] for message in sent]
    assert outcomes == ["done", "done", "invalid", "done"]
    (row,) = market.rows(
        "SELECT count(DISTINCT xmin::text) AS commits, count(*) AS rows FROM unwind.requests WHERE request_id LIKE 'm_'"
    )
    assert (row.commits, row.rows) == (1, 3)


def test_failing_set_is_halved_until_the_bad_command_is_alone(
    market: Market, results: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = app.tasks["members.record"]
    run, sizes = task.run, []

    def failing(commands: list[Any]) -> Any:
        sizes.append(len(commands))
        if any(command.member_id == "bad" for command in commands):
            raise KeyError("private words")
        return run(commands)

    monkeypatch.setattr(task, "run", failing)
    sent = messages(*[record("bad" if number == 5 else f"m-{number}") for number in range(8)])
    traces = execute_messages(sent)
    assert [trace and trace[0] for trace in traces] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert sizes == [8, 4, 4, 2, 1, 1, 2]
    bad = results.get_task_meta("m5")
    assert (bad["status"], "private" in str(bad)) == ("RETRY", False)


def test_set_that_waits_for_a_lock_is_given_back(
    market: Market, results: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command that waits must not delay the others of its batch again and again."""
    monkeypatch.setattr(execution, "MAX_SECONDS", -1.0)
    assert execute_messages(messages(record("a"), record("b"))) == [None, None]


def test_messages_wait_for_a_database_that_is_away(
    market: Market, results: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def unavailable(commands: list[Any]) -> Any:
        calls.append(commands)
        raise OperationalError("SELECT 1", {}, Exception("away"))

    monkeypatch.setattr(app.tasks["members.record"], "run", unavailable)
    execute_messages(messages(record("a"), record("b"), record("c")))
    assert len(calls) == 1
    assert [results.get_task_meta(f"m{n}")["status"] for n in range(3)] == ["RETRY"] * 3


def test_results_that_cannot_be_stored_settle_nothing(
    market: Market, results: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages are delivered again and find their answers."""

    def fail(*_: Any) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(results, "_set_all", fail)
    traces = execute_messages(messages(record("a"), record("b")))
    assert [trace and (trace[0], "ConnectionResetError" in str(trace[1].traceback)) for trace in traces] == [
        (1, True)
    ] * 2
