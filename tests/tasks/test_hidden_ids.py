"""Ids with invisible characters or line breaks are invalid on every interface."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.bad_input import GOOD, NAMES, PUBLIC, argument_paths, replace_argument
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url

HIDDEN = ("\u0085", "\u2028", "\u200b", "a\u0085b", "a\u2028b", "\u3164")
IDS = [
    (task, path)
    for task in PUBLIC
    for path, _ in argument_paths(GOOD[task])
    if path[-1] in (*NAMES, "no", "type") and path[0] not in ("orders", "values")
]


@pytest.mark.parametrize("text", HIDDEN, ids=[ascii(text) for text in HIDDEN])
def test_a_message_with_a_hidden_id_is_invalid(market: Market, text: str) -> None:
    for task, path in IDS:
        answer = market.simulation.execute(task, replace_argument(GOOD[task], path, text), "m-1")
        paths = [error["path"] for error in answer["errors"]]
        assert (answer["outcome"], ".".join(map(str, path)) in paths) == ("invalid", True), (task, path, answer)


def test_a_submission_by_sql_with_a_hidden_id_is_invalid(market: Market, database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url), autocommit=True) as caller:
        for number, text in enumerate(HIDDEN):
            payload: dict[str, Any] = GOOD["npb.respond"] | {"member_id": text}
            caller.execute(
                "SELECT unwind.submit_command('npb.respond', %s::jsonb, %s)", [json.dumps(payload), f"hidden-{number}"]
            )
        caller.execute("UPDATE unwind.submissions SET submitted_at = '2026-03-01Z', due_at = '2026-03-01Z'")
        assert market.done("submissions.drain") == {"taken": len(HIDDEN)}
        outcomes = caller.execute(
            "SELECT DISTINCT outcome FROM unwind.command_answers WHERE request_id LIKE 'hidden-%'"
        ).fetchall()
    assert outcomes == [("invalid",)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BILLING_TIME_ZONE", "localtime"),
        ("BILLING_TIME_ZONE", "posix/Europe/Berlin"),
        ("BILLING_TIME_ZONE", "Europe/Berlin "),
        ("NPB_FILE_AFTER", "٧d"),
        ("NPB_FILE_AFTER", " 7d"),
        ("NPB_FILE_AFTER", "7d\n"),
        ("OCR_REMIND_AFTER", [f"{n}d" for n in range(1, 52)]),
        ("MINIMUM_BILL", " 5.00"),
        ("MINIMUM_BILL", "٥.00"),
        ("MINIMUM_BILL", "5_0.00"),
        ("MINIMUM_BILL", "1e3"),
        ("MINIMUM_BILL", "Infinity"),
        ("MINIMUM_BILL", "NaN"),
        ("FEE_SLICES", [{"rate": "0.0１"}]),
        ("FEE_SLICES", [{"rate": "1e-400000"}]),
        ("FEE_SLICES", [{"rate": " 0.01"}]),
        ("FEE_SLICES", [{"rate": "0.123456789"}]),
        ("FEE_SLICES", [{"rate": "0.01"}] * 51),
        ("FEE_EXEMPT_SELLERS", ["\u200b"]),
        ("FEE_EXEMPT_SELLERS", ["s\u2028"]),
    ],
)
def test_terms_with_unusable_values_are_invalid(market: Market, setting: str, value: Any) -> None:
    answer = market.do("terms.apply", terms={setting: value}, staff="kim", **{"from": "2027-01-01T00:00:00Z"})
    assert (answer["outcome"], {error["path"] for error in answer["errors"]}) == ("invalid", {f"terms.{setting}"})


@pytest.mark.parametrize("start", ["2127-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_terms_more_than_a_hundred_years_ahead_are_invalid(market: Market, start: str) -> None:
    answer = market.do("terms.apply", terms={"STRIKE_LIMIT": 4}, staff="kim", **{"from": start})
    assert (answer["outcome"], [error["path"] for error in answer["errors"]]) == ("invalid", ["from"])
