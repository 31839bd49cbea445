"""Tests that what the README tells a newcomer to type fits the demo's marketplace."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies.timestamps import format_timestamp
from workers.cli.send import parse_command_arguments
from workers.settings import CHECKOUT
from workers.show_queries import parse_query
from workers.simulation.demo.sample_market import SELLERS, build_sample_market
from workers.simulation.engine import Simulation
from workers.simulation.replay import parse_lines, play

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PAST_END = datetime(2026, 11, 2, 9, tzinfo=UTC)


@pytest.fixture
def demo(simulation: Simulation) -> Simulation:
    """The demo's marketplace at the end of its past."""
    lines = parse_lines(json.dumps(line) for line in build_sample_market(PAST_END).lines)
    simulation.clock.instant = lines[0].at
    assert all(played.result["outcome"] == "done" for played in play(lines, simulation))
    return simulation


def _show(demo: Simulation, *words: str) -> Any:
    with demo.database.transaction() as conn:
        return parse_query(words).read(conn, demo.clock.instant)


def test_own_alert_unlocks_within_a_minute(demo: Simulation) -> None:
    (block,) = re.findall(r"^### Your own alert.*?^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    (terms,) = (words[1] for words in commands if words[0] == "printf")
    begins = demo.clock.instant + timedelta(seconds=2)
    arguments = {"terms": tomllib.loads(terms.replace("\\n", "\n")), "from": format_timestamp(begins), "staff": "kim"}
    assert demo.do("terms.apply", **arguments)["outcome"] == "done"
    demo.advance(begins)
    sent = [
        (words[2], parse_command_arguments(tuple(words[3:]), None))
        for words in commands
        if words[:2] == ["./run", "send"]
    ]
    assert [task for task, _ in sent] == ["members.record", "orders.submit", "npb.file", "orders.cancel"]
    *done, early = [demo.do(task, **arguments) for task, arguments in sent]
    assert [answer["outcome"] for answer in done] == ["done"] * 3, done
    unlocked = begins + timedelta(minutes=1)
    assert (early["code"], early["possible_from"]) == ("TOO_EARLY", format_timestamp(unlocked))
    demo.advance(unlocked)
    task, arguments = sent[-1]
    assert demo.do(task, **arguments)["outcome"] == "done"
    for words in (["explain", "order", "1"], ["order", "1"]):
        assert ["./run", *words] in commands or ["./run", "show", *words] in commands
        assert _show(demo, *words)["status"] == "CANCELLED"


def test_the_demo_is_as_large_as_its_description() -> None:
    sample = build_sample_market(PAST_END)
    numbers = {3: "three", 4: "four", 5: "five", 11: "eleven", 12: "twelve", 13: "thirteen"}
    assert f"{numbers[len(SELLERS)]} stores and {numbers[len(sample.unlocking)]} alerts" in README


def test_examples_name_what_the_demo_has(demo: Simulation) -> None:
    examples = re.findall(r"`\./run (?:explain |show )?(order|credits) ([\w-]+)`", README)
    assert len(examples) == 5
    for noun, subject in examples:
        assert _show(demo, noun, subject), (noun, subject)
    ((order_id, member_id),) = re.findall(r"`\./run send orders.cancel order_id=(\d+) member_id=([\w-]+)`", README)
    answer = demo.do("orders.cancel", order_id=int(order_id), member_id=member_id)
    assert answer["code"] not in ("ORDER_UNKNOWN", "NOT_A_PARTY")


def test_files_in_the_table_of_packages_exist() -> None:
    rows = re.findall(r"^\| \[`(\w+)/`\]\(\1\) \|(.*)$", README, re.MULTILINE)
    named = [CHECKOUT / package / path for package, text in rows for path in re.findall(r"→ `([\w/.]+)`", text)]
    assert len(named) >= 10
    assert [path for path in named if not path.exists()] == []
