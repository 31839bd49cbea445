"""Tests that the worked examples come out to the cent (E1 to E10).

Beside each `tests/histories/eNN_NAME.jsonl` is `eNN_NAME.expected.json`: the story in words, each cancellation's
answer about its fee, and for each `show bill` of the history, in order, the expected bill; a bill's `lines` are
`[kind, order, amount]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.simulation import replay
from workers.simulation.engine import Simulation

HISTORIES = Path(__file__).resolve().parents[1] / "histories"
EXAMPLES = sorted(HISTORIES.glob("e[0-9][0-9]_*.jsonl"))


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_worked_example_has_the_expected_bills(path: Path, database_url: str) -> None:
    """E1 to E10: every command is done, and every bill equals the rule book's."""
    lines = replay.read_history(path)
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    with Simulation(database_url, at=lines[0].at) as simulation:
        played = [entry.as_json() for entry in replay.play(lines, simulation)]
    answers = [entry["answer"] for entry in played if "task" in entry]
    assert {answer["outcome"] for answer in answers} == {"done"}, answers
    assert [answer["effects"]["fee"] for answer in answers if "basis" in answer["effects"]] == expected.get("fees", [])
    bills = [entry["result"] for entry in played if "show" in entry]
    assert [
        _as_expected(bill, expected_bill) for bill, expected_bill in zip(bills, expected["bills"], strict=True)
    ] == expected["bills"]


def test_there_are_ten_worked_examples() -> None:
    assert [path.stem[:3] for path in EXAMPLES] == [f"e{number:02}" for number in range(1, 11)]


def _as_expected(bill: dict[str, Any], expected_bill: dict[str, Any]) -> dict[str, Any]:
    lines = [[line["kind"], line["order_id"], line["amount"]] for line in bill["lines"]]
    return {name: lines if name == "lines" else bill[name] for name in expected_bill}
