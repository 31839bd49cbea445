"""Tests of what `unwind.submit_command` accepts and refuses."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from models.submissions import SubmissionRow, SubmittableCommandRow
from tasks.declarations import COMMANDS
from tests.plugins.market import Market
from tests.plugins.sql_interface import submit_command
from tests.workers.submissions.submitting import fetch_receipt
from workers.app import app


def test_sql_interface_accepts_exactly_the_declared_commands(market: Market, caller: psycopg.Connection) -> None:
    names = market.column(SubmittableCommandRow.name)
    assert sorted(names) == sorted(COMMANDS)
    for name in (*names, *(task for task in app.tasks if task not in COMMANDS), None):
        receipt = submit_command(
            caller, name, {"order_id": 1, "member_id": "seller"}, f"asked-{name}".replace(" ", "-")
        )
        assert receipt["code"] == (None if name in COMMANDS else "TASK_UNKNOWN"), name


def test_request_id_as_text_is_the_same_submission(market: Market, caller: psycopg.Connection) -> None:
    """JavaScript rounds numbers above 2^53, so it writes texts; digits in a comment must still count."""
    large = 2**53 + 1
    comment = f'said "order_id": "{large}", ' + r'and \"order_id": "1"'
    for order_id in (str(large), large):
        answer = submit_command(
            caller, "npb.respond", {"order_id": order_id, "member_id": "buyer", "comment": comment}, "js-1"
        )
        assert answer == {"request_id": "js-1", "accepted": True, "code": None}
    caller.commit()
    assert market.column(SubmissionRow.order_id, request_id="js-1") == [large]
    for change in ({"order_id": large - 1}, {"comment": comment.replace('"1"', "1")}):
        changed = {"order_id": large, "member_id": "buyer", "comment": comment} | change
        assert submit_command(caller, "npb.respond", changed, "js-1")["code"] == "REQUEST_ID_REUSED"
    payload = {'a\\"order_id': "5", "order_id": "05"}
    submit_command(caller, "npb.respond", payload, "js-2")
    assert submit_command(caller, "npb.respond", payload, "js-2")["accepted"]
    changed = {'a\\"order_id': 5, "order_id": "05"}
    assert submit_command(caller, "npb.respond", changed, "js-2")["code"] == "REQUEST_ID_REUSED"
    lines = [{"lot_id": "9007199254740993", "quantity": 1}]
    submit_command(caller, "orders.submit", {"order_id": "7", "lines": lines}, "js-3")
    arguments = {"order_id": 7, "lines": [{"lot_id": large, "quantity": 1}]}
    assert submit_command(caller, "orders.submit", arguments, "js-3")["accepted"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("orders.cancle", ["orders.cancel"]),
        ("npb.fil", ["npb.file"]),
        ("accept_penalty", ["npb.accept_penalty"]),
        ("Qq", []),
        ("x" * 1_000_000, []),
        ("", []),
        (None, []),
    ],
)
def test_an_unknown_task_is_refused_with_similar_names(
    market: Market, caller: psycopg.Connection, name: str | None, suggested: list[str]
) -> None:
    refused = {"request_id": "r", "accepted": False, "code": "TASK_UNKNOWN"}
    assert submit_command(caller, name, {}, "r") == refused | {"did_you_mean": suggested}


@pytest.mark.parametrize(
    ("name", "payload", "request_id", "code"),
    [
        (None, {}, "r", "TASK_UNKNOWN"),
        ("orders.destroy", {}, "r", "TASK_UNKNOWN"),
        ("npb.scan_open_alerts", {}, "r", "TASK_UNKNOWN"),
        ("npb.file", [], "r", "PAYLOAD_INVALID"),
        ("npb.file", "text", "r", "PAYLOAD_INVALID"),
        ("npb.file", None, "r", "PAYLOAD_INVALID"),
        ("npb.file", {"request_id": "other"}, "r", "PAYLOAD_INVALID"),
        ("npb.file", {}, "with space", "REQUEST_ID_INVALID"),
        ("npb.file", {}, "", "REQUEST_ID_INVALID"),
        ("npb.file", {}, "x" * 129, "REQUEST_ID_INVALID"),
        ("npb.file", {}, "new\nline", "REQUEST_ID_INVALID"),
        ("npb.file", {"comment": "x" * (17 * 2**20)}, "r", "PAYLOAD_TOO_LARGE"),
    ],
)
def test_bad_submission_is_answered_and_never_raises(
    market: Market, caller: psycopg.Connection, name: str | None, payload: Any, request_id: str, code: str
) -> None:
    """The caller's transaction continues."""
    answer = submit_command(caller, name, payload, request_id)
    assert (answer["accepted"], answer["code"]) == (False, code)
    caller.commit()
    assert market.count(SubmissionRow) == 0


def test_submitting_role_has_no_other_rights(market: Market, caller: psycopg.Connection) -> None:
    caller.execute("SET ROLE unwind_submit")
    assert submit_command(caller, "npb.file", {"order_id": 1, "member_id": "x"})["accepted"]
    caller.commit()
    for statement in (
        "SELECT * FROM unwind.orders",
        "SELECT * FROM unwind.submissions",
        "DELETE FROM unwind.submissions",
        "SELECT * FROM unwind.events_after(NULL, 1)",
        "CREATE TABLE unwind.x (y int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute(statement)
        caller.rollback()


def test_submit_accepts_jsonb_text_and_literals(market: Market, caller: psycopg.Connection) -> None:
    """Named arguments work with each."""
    for argument in ("'{\"order_id\": 1}'", "CAST('{\"order_id\": 1}' AS text)", "jsonb_build_object('order_id', 1)"):
        positional = fetch_receipt(caller, f"SELECT unwind.submit_command('npb.file', {argument}, 'same')")
        named = fetch_receipt(
            caller, f"SELECT unwind.submit_command(name => 'npb.file', payload => {argument}, request_id => 'same')"
        )
        without_id = fetch_receipt(caller, f"SELECT unwind.submit_command('npb.file', {argument})")
        assert (positional, named) == ({"request_id": "same", "accepted": True, "code": None},) * 2
        assert without_id["accepted"]
        assert len(without_id["request_id"]) == 36
