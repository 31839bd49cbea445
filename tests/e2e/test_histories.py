"""Tests that the written histories end as the rules say.

Beside each `tests/histories/NAME.jsonl` is `NAME.expected.json`: the story in words, the ids of its rules, and for each
line the expected answer of its task (`done`, `refused CODE [possible from]`, `invalid PATH …`, `conflict CODE`,
with `replayed` added for a repeated first answer) or the expected output.  Expectations name only what matters:

- an object matches every object that has at least these members;
- a list of objects matches a list of the same length whose members match one by one;
- a list of words matches the `event`s of a timeline, in order, or `event > recipient` of notices, in any order;
- an object of `action: "possible"` or `action: "CODE [possible from]"` matches a list of options.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.whatif import list_differences_without_a_reason
from workers.simulation import replay
from workers.simulation.engine import Simulation

HISTORIES = Path(__file__).resolve().parents[1] / "histories"
# The worked examples e01 to e10 have a test of their own.
FILES = sorted(path for path in HISTORIES.glob("*.jsonl") if path.name[0].isdigit())


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_history_has_the_expected_results(path: Path, database_url: str) -> None:
    """R104: time is an argument. The expectations were written from the rules."""
    lines = replay.read_history(path)
    expected = _expected(path)
    assert [entry["line"] for entry in expected["lines"]] == [line.number for line in lines], (
        "each line has its expectation"
    )
    differing = []
    with Simulation(database_url, at=lines[0].at) as simulation:
        for played, expected_line in zip(replay.play(lines, simulation), expected["lines"], strict=True):
            differing += [
                f"line {expected_line['line']}, {difference}" for difference in _differences(played, expected_line)
            ]
        with simulation.database.transaction() as conn:
            differing += list_differences_without_a_reason(conn)
    if differing:
        pytest.fail("\n".join([f"{path.stem}: {expected['story']}", *differing]), pytrace=False)


def test_every_history_has_a_story() -> None:
    assert len(FILES) >= 40
    for path in FILES:
        expected = _expected(path)
        assert len(expected["story"]) > 60, path.stem
        assert expected["rules"], path.stem


def _expected(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    return content


def _differences(played: replay.HistoryLine, expected: dict[str, Any]) -> list[str]:
    actual = json.loads(json.dumps(played.as_json()))  # as printed
    if "show" in actual:
        assert expected["show"] == " ".join(str(word) for word in actual["show"])
        return [
            f"show {expected['show']}: {difference}"
            for difference in _mismatches(expected["sees"], actual["result"], "")
        ]
    assert expected["task"] == actual["task"]
    answer = actual["answer"]
    differences = []
    if (words := _as_text(answer)) != expected["is"]:
        differences.append(f"{expected['task']} is {words} instead of {expected['is']}: {answer}")
    if "effects" in expected:
        differences += [
            f"{expected['task']}: {difference}"
            for difference in _mismatches(expected["effects"], answer["effects"], "effects")
        ]
    return differences


def _as_text(answer: dict[str, Any]) -> str:
    if "outcome" not in answer:  # an internal task returns its effects
        return "done"
    words = [answer["outcome"], answer["code"], answer["possible_from"]]
    words += sorted({error["path"] for error in answer["errors"]})
    return " ".join(word for word in (*words, "replayed" if answer["replayed"] else None) if word)


def _mismatches(expected: Any, actual: Any, path: str) -> list[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            entry
            for name, value in expected.items()
            for entry in (
                [f"{path}.{name} is missing"]
                if name not in actual
                else _mismatches(value, actual[name], f"{path}.{name}")
            )
        ]
    if isinstance(expected, dict) and isinstance(actual, list):
        options = {entry["action"]: _option(entry) for entry in actual}
        return _mismatches(expected, options, path)
    if isinstance(expected, list) and isinstance(actual, list):
        if any(isinstance(entry, str) for entry in expected):
            expected, actual = _named(expected, actual)
            return [] if expected == actual else [f"{path} is {actual} instead of {expected}"]
        if len(expected) != len(actual):
            return [f"{path} has {len(actual)} entries instead of {len(expected)}: {actual}"]
        return [
            entry
            for at, (a, b) in enumerate(zip(expected, actual, strict=True))
            for entry in _mismatches(a, b, f"{path}[{at}]")
        ]
    return (
        []
        if expected == actual and type(expected) is type(actual)
        else [f"{path} is {actual!r} instead of {expected!r}"]
    )


def _named(expected: list[str], actual: list[Any]) -> tuple[list[str], list[str]]:
    if actual and isinstance(actual[0], dict) and "recipient" in actual[0]:
        return sorted(expected), sorted(f"{entry['event']} > {entry['recipient']}" for entry in actual)
    return expected, [entry["event"] if isinstance(entry, dict) else entry for entry in actual]


def _option(option: dict[str, Any]) -> str:
    if option["possible"]:
        return "possible"
    return " ".join(word for word in (option["code"], option["possible_from"]) if word)
