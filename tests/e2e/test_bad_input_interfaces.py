"""Tests that bad input gets the same answer by message, by SQL and as an item of `orders.cancel_many`."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from kombu.utils.json import dumps

from models.alerts import AlertRow
from models.dead_jobs import DeadJobRow
from models.events import EventRow
from models.inventory import LotRow
from models.ledger import LedgerLineRow
from models.members import MemberRow
from models.ocr import OcrRow
from models.orders import OrderLineRow, OrderRow
from models.removals import RemovalRow
from models.stock_moves import StockMoveRow
from models.stored_answers import Answer
from tasks.cancellation import CancelOrder
from tasks.command_parsing import NOT_PLAIN_JSON_ERROR, parse_command
from tasks.declarations import COMMANDS
from tests.bad_input import GOOD, MARK, PUBLIC, bad_arguments, replace_argument
from tests.plugins.market import Market
from tests.plugins.sql_interface import submit_command
from tests.plugins.upstream import ANSWER_TIMEOUT_SECONDS, Installation, submit_orders, temporary_installation
from workers.embedded.client import ServerUrls

pytestmark = [pytest.mark.e2e, pytest.mark.long]

TRIED_A_TASK = 12
"""A part of the hundreds that tests/tasks tries: enough for every kind through each interface."""
STEPS = random.Random(20_260_328)
MAX_DURATION = 100_000
"""Characters of one value here; ten millions are tried by themselves, for a message of many of them is too long.
"""


def seed(market: Market) -> None:
    submit_orders(market, range(2001, 2003), buyer_id="stranger")


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(
        servers, admin, template_database, tmp_path_factory.mktemp("nonsense"), seed
    ) as running:
        running.start_worker()
        yield running


def is_serializable(arguments: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    return [
        (path, bad) for path, bad in bad_arguments(arguments) if not (isinstance(bad, str) and len(bad) > MAX_DURATION)
    ]


def bad_inputs() -> list[tuple[str, str, dict[str, Any], list[dict[str, str]]]]:
    inputs = []
    for task in PUBLIC:
        model = COMMANDS[task].model
        cases = is_serializable(GOOD[task])
        for number, (path, bad) in enumerate(STEPS.sample(cases, min(TRIED_A_TASK, len(cases)))):
            request_id = f"nonsense:{task}:{number}"
            arguments = replace_argument(GOOD[task], path, bad) | {"request_id": request_id}
            answer = parse_command(model, arguments, request_id)
            if isinstance(answer, Answer):
                inputs.append((task, request_id, arguments, answer.as_json()["errors"]))
    return inputs


def table_contents(installation: Installation) -> dict[str, list[str]]:
    return installation.content(
        MemberRow,
        OrderRow,
        OrderLineRow,
        LotRow,
        StockMoveRow,
        AlertRow,
        OcrRow,
        RemovalRow,
        LedgerLineRow,
        EventRow,
    )


def test_bad_input_by_message_is_invalid(installation: Installation) -> None:
    before = table_contents(installation)
    with installation.client() as client:
        sent = [
            (expected, client.send_task(task, kwargs=arguments, queue="commands"))
            for task, _, arguments, expected in bad_inputs()
        ]
        for expected, result in sent:
            answer = result.get(timeout=ANSWER_TIMEOUT_SECONDS)
            assert (answer["outcome"], answer["errors"]) == ("invalid", expected)
            assert MARK not in json.dumps(answer)
    assert len(sent) > 10 * len(PUBLIC)
    assert table_contents(installation) == before
    assert installation.supervisor.restarts == 0


def test_bad_input_by_sql_is_invalid(installation: Installation) -> None:
    before, refused, accepted = table_contents(installation), 0, []
    with installation.connect() as conn:
        for task, request_id, arguments, expected in bad_inputs():
            payload = {name: value for name, value in arguments.items() if name != "request_id"}
            try:
                at_once = submit_command(conn, task, payload, f"sql:{request_id}")
            except (psycopg.DataError, UnicodeEncodeError):
                refused += 1
                continue
            assert at_once["accepted"], (task, at_once)
            accepted.append((f"sql:{request_id}", expected))
    for request_id, expected in accepted:
        answer = installation.answer_of(request_id)
        assert (answer["outcome"], answer["errors"]) == ("invalid", expected), request_id
        assert MARK not in json.dumps(answer)
    assert len(accepted) > 5 * refused > 0
    assert table_contents(installation) == before
    assert installation.supervisor.restarts == 0


def test_bad_items_of_cancel_many_are_invalid(installation: Installation) -> None:
    items, expected = [], []
    for number, (path, bad) in enumerate(is_serializable(GOOD["orders.cancel"])):
        item = replace_argument(GOOD["orders.cancel"], path, bad)
        answer = parse_command(CancelOrder, item, f"many-bad:{number}")
        if isinstance(answer, Answer):
            items.append(item)
            expected.append(answer.as_json()["errors"])
    assert 50 < len(items) <= 1000
    before = table_contents(installation)
    with installation.client() as client:
        sent = {"orders": items, "request_id": "many-bad"}
        answer = client.send_task("orders.cancel_many", kwargs=sent, queue="commands").get(
            timeout=ANSWER_TIMEOUT_SECONDS
        )
    assert answer["outcome"] == "done"
    assert [item["errors"] for item in answer["effects"]["answers"]] == expected
    assert table_contents(installation) == before


@pytest.mark.parametrize("characters", [2_001, 10_000_000])
def test_overlong_comment_is_invalid(installation: Installation, characters: int) -> None:
    arguments = {"order_id": 2001, "member_id": "seller", "comment": "x" * characters}
    expected = [{"path": "comment", "message": "must have at most 2000 characters"}]
    with installation.client() as client:
        answer = client.send_task("npb.file", kwargs=arguments, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)
        assert (answer["outcome"], answer["errors"]) == ("invalid", expected)
        request_id = f"long:{characters}"
        with installation.connect() as conn:
            submit_command(conn, "npb.file", arguments, request_id)
        assert installation.answer_of(request_id)["errors"] == expected
        options = {"order_id": 2001, "member_id": "seller"}
        assert (
            client.send_task("orders.options", kwargs=options, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)[
                "outcome"
            ]
            == "done"
        )


def test_typed_values_of_a_python_producer_are_invalid(installation: Installation) -> None:
    typed = {1: uuid.uuid4(), 50: Decimal("1.00")}
    items = [{"order_id": 3001 + n, "member_id": "seller", "reason": "S_MUTUAL"} for n in range(100)]
    items = [item | {"comment": typed[n]} if n in typed else item for n, item in enumerate(items)]
    plain = json.loads(dumps(items))  # type: ignore[no-untyped-call]
    with installation.client() as client, installation.connect() as conn:
        sent = client.send_task("orders.cancel_many", kwargs={"orders": items}, queue="commands")
        answer = sent.get(timeout=ANSWER_TIMEOUT_SECONDS)["effects"]
        submit_command(conn, "orders.cancel_many", {"orders": plain}, "typed-by-sql")
        by_sql = installation.answer_of("typed-by-sql")["effects"]
        terms = {"terms": {"STRIKE_LIMIT": Decimal(3)}, "from": datetime(2999, 1, 1, tzinfo=UTC), "staff": "kim"}
        applied = client.send_task("terms.apply", kwargs=terms, queue="commands").get(timeout=ANSWER_TIMEOUT_SECONDS)
    for effects in (answer, by_sql):
        assert effects["counts"] == {"invalid": 2, "refused": 98}, "of orders that are not there"
        wrong = {n: item["errors"] for n, item in enumerate(effects["answers"]) if item["outcome"] == "invalid"}
        assert wrong == {n: [{"path": "comment", "message": NOT_PLAIN_JSON_ERROR}] for n in typed}
    assert [error["path"] for error in applied["errors"]] == ["from"]
    assert installation.count(DeadJobRow) == 0
