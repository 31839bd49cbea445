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

from workers.simulation import replay
from workers.simulation.engine import Simulation

HISTORIES = Path(__file__).resolve().parents[1] / "histories"
# The worked examples e01 to e10 have their own shape and their own test: bills, to the cent.
FILES = sorted(path for path in HISTORIES.glob("*.jsonl") if path.name[0].isdigit())


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_history_ends_as_the_rules_say(path: Path, database_url: str) -> None:
    """R104: time is an argument, nothing sleeps.  The expectations were written from the rules."""
    lines = replay.read_history(path)
    expected = _expected(path)
    assert [one["line"] for one in expected["lines"]] == [line.number for line in lines], (
        "each line has its expectation"
    )
    differing = []
    with Simulation(database_url, at=lines[0].at) as simulation:
        for played, wanted in zip(replay.play(lines, simulation), expected["lines"], strict=True):
            differing += [f"line {wanted['line']}, {what}" for what in _differences(played, wanted)]
    if differing:
        pytest.fail("\n".join([f"{path.stem}: {expected['story']}", *differing]), pytrace=False)


def test_there_are_many_histories_and_each_tells_a_story() -> None:
    assert len(FILES) >= 40
    for path in FILES:
        expected = _expected(path)
        assert len(expected["story"]) > 60, path.stem
        assert expected["rules"], path.stem


def _expected(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    return found


def _differences(played: replay.PlayedLine, wanted: dict[str, Any]) -> list[str]:
    came = json.loads(json.dumps(played.as_json()))  # as it is printed
    if "show" in came:
        assert wanted["show"] == " ".join(str(word) for word in came["show"])
        return [f"show {wanted['show']}: {one}" for one in _misfits(wanted["sees"], came["result"], "")]
    assert wanted["task"] == came["task"]
    answer = came["answer"]
    found = []
    if (words := _in_words(answer)) != wanted["is"]:
        found.append(f"{wanted['task']} is {words} instead of {wanted['is']}: {answer}")
    if "effects" in wanted:
        found += [f"{wanted['task']}: {one}" for one in _misfits(wanted["effects"], answer["effects"], "effects")]
    return found


def _in_words(answer: dict[str, Any]) -> str:
    if "outcome" not in answer:  # a task of the house gives its effects
        return "done"
    words = [answer["outcome"], answer["code"], answer["possible_from"]]
    words += sorted({error["path"] for error in answer["errors"]})
    return " ".join(word for word in (*words, "replayed" if answer["replayed"] else None) if word)


def _misfits(wanted: Any, seen: Any, where: str) -> list[str]:
    if isinstance(wanted, dict) and isinstance(seen, dict):
        return [
            one
            for name, value in wanted.items()
            for one in (
                [f"{where}.{name} is missing"] if name not in seen else _misfits(value, seen[name], f"{where}.{name}")
            )
        ]
    if isinstance(wanted, dict) and isinstance(seen, list):
        options = {one["action"]: _option(one) for one in seen}
        return _misfits(wanted, options, where)
    if isinstance(wanted, list) and isinstance(seen, list):
        if any(isinstance(one, str) for one in wanted):
            wanted, seen = _named(wanted, seen)
            return [] if wanted == seen else [f"{where} is {seen} instead of {wanted}"]
        if len(wanted) != len(seen):
            return [f"{where} has {len(seen)} entries instead of {len(wanted)}: {seen}"]
        return [
            one for at, (a, b) in enumerate(zip(wanted, seen, strict=True)) for one in _misfits(a, b, f"{where}[{at}]")
        ]
    return [] if wanted == seen and type(wanted) is type(seen) else [f"{where} is {seen!r} instead of {wanted!r}"]


def _named(wanted: list[str], seen: list[Any]) -> tuple[list[str], list[str]]:
    if seen and isinstance(seen[0], dict) and "recipient" in seen[0]:
        return sorted(wanted), sorted(f"{one['event']} > {one['recipient']}" for one in seen)
    return wanted, [one["event"] if isinstance(one, dict) else one for one in seen]


def _option(one: dict[str, Any]) -> str:
    if one["possible"]:
        return "possible"
    return " ".join(word for word in (one["code"], one["possible_from"]) if word)
