"""Tests of replayed histories: order of lines, sweeps and outbox messages, malformed lines, and the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import create_engine, text

from models.alerts import AlertRow
from models.bills import BillRow
from models.db import database as db
from models.orders import OrderRow
from policies.timestamps import format_timestamp
from tests.plugins.stored_rows import load_column
from workers.settings import CHECKOUT
from workers.simulation import replay
from workers.simulation.engine import Simulation, simulation_in_empty_database, simulation_pool

ORDERED = datetime(2026, 3, 28, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def line(at: datetime, task: str, **kwargs: Any) -> str:
    """One line of a history."""
    return json.dumps({"at": format_timestamp(at), "task": task, "kwargs": kwargs})


def query_line(at: datetime, *words: str | int) -> str:
    """A line with a query."""
    return json.dumps({"at": format_timestamp(at), "show": list(words)})


MARKET = [
    line(ORDERED, "members.record", member_id="s", handle="Sam", email="s@example.org"),
    line(ORDERED, "members.record", member_id="b", handle="Bea", email="b@example.org"),
    line(
        ORDERED,
        "inventory.record_lot",
        lot={
            "lot_id": 1,
            "seller_id": "s",
            "item": {"no": "3001", "type": "PART"},
            "color_id": 5,
            "quantity": 1000,
            "new_or_used": "N",
            "unit_price": "7.50",
        },
    ),
    line(ORDERED, "orders.submit", order_id=1003, buyer_id="b", seller_id="s", lines=[{"lot_id": 1, "quantity": 100}]),
]
FILED = ORDERED + 7 * DAY
NPB = [*MARKET, line(FILED, "npb.file", order_id=1003, member_id="s")]


def play(lines: list[str], simulation: Simulation, until: datetime | None = None) -> list[Any]:
    """The results of a history, by line."""
    return [entry.result for entry in replay.play(replay.parse_lines(lines), simulation, until=until)]


@pytest.fixture
def early(simulation: Simulation) -> Simulation:
    """A simulation that starts before every history."""
    simulation.clock.instant = ORDERED - DAY
    return simulation


def test_sweeps_run_at_the_deadline_before_the_lines_of_that_instant(early: Simulation) -> None:
    """R41: unlocked exactly seven days after filing, before a line of that instant."""
    due = FILED + 7 * DAY
    second_before = due - timedelta(seconds=1)
    before, after = play([*NPB, query_line(second_before, "order", 1003), query_line(due, "order", 1003)], early)[-2:]
    assert before["alert"]["unlocked_at"] is None
    assert after["alert"]["unlocked_at"] == format_timestamp(due)
    assert after["timeline"][-1]["at"] == format_timestamp(due)


def test_deadlines_between_lines_are_met(early: Simulation) -> None:
    """Bills are issued at midnight of the billing zone, without a line near it."""
    later = datetime(2026, 4, 20, tzinfo=UTC)
    bill = play([*MARKET, query_line(later, "bill", "s", "2026-03")], early)[-1]
    assert (bill["state"], bill["issued_on"], bill["total"]) == ("issued", "2026-04-05", "20.00")
    with early.database.transaction() as conn:
        assert load_column(conn, BillRow.issued_at) == [datetime(2026, 4, 5, 4, tzinfo=UTC)]


def test_outbox_is_emptied_before_the_next_line(early: Simulation) -> None:
    cancel = line(FILED + 7 * DAY, "orders.cancel", order_id=1003, member_id="s")
    order = play([*NPB, cancel, query_line(FILED + 7 * DAY, "order", 1003)], early)[-1]
    assert order["fee"]["credit"] == "-20.00"


def test_until_advances_time_and_skips_later_lines(early: Simulation) -> None:
    due = FILED + 7 * DAY
    assert len(play([*NPB, query_line(due + DAY, "order", 1003)], early, until=due)) == len(NPB)
    assert early.clock.instant == due
    with early.database.transaction() as conn:
        assert load_column(conn, AlertRow.unlocked_at) == [due]


def test_repeated_history_has_the_same_answers(servers: Any) -> None:
    history = [
        *NPB,
        line(FILED + 8 * DAY, "orders.cancel", order_id=1003, member_id="s"),
        query_line(FILED + 9 * DAY, "lots", "s"),
    ]
    with simulation_pool() as simulations:
        runs = []
        for _ in range(2):
            with simulations.fresh(ORDERED) as simulation:
                runs.append(play(history, simulation))
    assert runs[0] == runs[1]
    assert runs[0][0]["request_id"] == "replay:1"


def test_month_of_one_order_replays_within_a_second(early: Simulation) -> None:
    """Ten times the expected time, because tests share the machine."""
    began = time.process_time()
    play([*NPB, query_line(FILED + 30 * DAY, "order", 1003)], early)
    assert time.process_time() - began < 5


def test_lines_may_be_scheduled_tasks(early: Simulation) -> None:
    """R103: every scheduled job may be run by hand at any time."""
    answer = play([*NPB, line(FILED + DAY, "npb.scan_open_alerts")], early)[-1]
    assert (answer["outcome"], answer["effects"]) == ("done", {"unlocked": 0})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"task": "npb.file", "kwargs": {}}', "`at` is missing"),
        ('{"at": "2026-03-28", "task": "npb.file"}', "`at` must be an instant"),
        ('{"at": "2026-03-28T10:00:00", "task": "npb.file"}', "`at` must be an instant"),
        ('{"at": "1969-12-31T23:59:59Z", "task": "npb.file"}', "between the years"),
        ('{"at": "9999-12-31T23:59:59Z", "task": "npb.file"}', "`at` must be an instant"),
        ('{"at": "2026-03-28T10:00:00Z"}', "`task` must be the name of a task"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.fly", "kwargs": {}}', "`task` must be the name of a task"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "celery.chord", "kwargs": {}}', "`task` must be the name of a task"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.file", "kwargs": []}', "`kwargs` must be an object"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.scan_open_alerts", "kwargs": {"x": 1}}', "npb.scan_open_alerts"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.file", "args": []}', "has unknown fields: args"),
        ('{"at": "2026-03-28T10:00:00Z", "show": "order"}', "`show` must be a list"),
        ('{"at": "2026-03-28T10:00:00Z", "show": ["horse", 1]}', "No such command"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.file", "kwargs": {"x": 1, "x": 2}}', "twice"),
        ('{"at": "2026-03-28T10:00:00Z", "task": "npb.file", "kwargs": {"x": NaN}}', "NaN is not JSON"),
        ('{"at": "2026-03-27T10:00:00Z", "task": "npb.file", "kwargs": {}}', "is before the line above it"),
        ("[" * 100_000, ""),
    ],
)
def test_malformed_line_is_reported_before_anything_runs(bad: str, message: str) -> None:
    with pytest.raises(replay.InvalidHistory, match="line 5") as problem:
        replay.parse_lines([*MARKET, bad], "story.jsonl")
    assert message in str(problem.value)


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"order_id": 1, "member_id": "s", "reason": "x"}, "npb.file: reason: there is no such argument"),
        ({"member": "s"}, "member: there is no such argument; member_id: exactly one"),
        ({"member_id": "s"}, "npb.file: order_id: is missing"),
    ],
)
def test_unknown_and_missing_arguments_are_found_before_anything_runs(arguments: dict[str, Any], problems: str) -> None:
    lines = replay.parse_lines([*MARKET, "", line(ORDERED, "npb.file", **arguments)])
    with pytest.raises(replay.InvalidHistory, match=r"story\.jsonl, line 6: npb\.file") as problem:
        replay.check_history_arguments(lines, "story.jsonl")
    assert problems in str(problem.value)


def test_arguments_that_the_command_itself_answers_are_played() -> None:
    replay.check_history_arguments(
        replay.parse_lines(
            [
                *NPB,
                line(FILED, "npb.file", order_id="10O3", member_id="s"),
                line(FILED, "npb.scan_open_alerts"),
                query_line(FILED, "order", 1003),
            ]
        )
    )


def test_blank_lines_are_skipped() -> None:
    assert [entry.number for entry in replay.parse_lines([MARKET[0], "", MARKET[1], ""])] == [1, 3]


def test_history_is_adopted_by_an_empty_database(empty_database_url: str) -> None:
    with simulation_in_empty_database(empty_database_url, ORDERED) as simulation:
        play(NPB, simulation)
    live = db.connect(empty_database_url)
    with live.transaction() as conn:
        assert load_column(conn, OrderRow.status) == ["NPB"]
        assert live.clock.now(conn) > ORDERED
    live.dispose()
    with pytest.raises(click.ClickException, match="not empty"):
        simulation_in_empty_database(empty_database_url, ORDERED)


def test_database_with_a_foreign_table_is_refused(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE theirs (a int)"))
    engine.dispose()
    with pytest.raises(click.ClickException, match="not empty"):
        simulation_in_empty_database(empty_database_url, ORDERED)


def test_short_terms_need_permission(simulation: Simulation) -> None:
    short = {
        "terms": {"NPB_UNLOCK_NO_RESPONSE": "2s"},
        "from": format_timestamp(simulation.clock.instant),
        "staff": "kim",
    }
    refused = simulation.do("terms.apply", **short)
    assert (refused["outcome"], refused["errors"][0]["path"]) == ("invalid", "terms.NPB_UNLOCK_NO_RESPONSE")
    simulation.database.allow_short_terms = True
    assert simulation.do("terms.apply", **short)["outcome"] == "done"


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "workers", "replay", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_prints_one_object_per_line(tmp_path: Path) -> None:
    """Each file has a database of its own; DATABASE_URL and the broker are ignored."""
    story = tmp_path / "story.jsonl"
    story.write_text("\n".join([*NPB, query_line(FILED, "order", 1003)]) + "\n")
    done = run(
        "--answers",
        str(story),
        str(story),
        cwd=tmp_path,
        DATABASE_URL="postgresql+psycopg://nobody@127.0.0.1:1/nothing",
        CELERY_BROKER_URL="redis://127.0.0.1:1/0",
    )
    assert (done.returncode, done.stderr) == (0, "")
    objects = [json.loads(entry) for entry in done.stdout.splitlines()]
    assert len(objects) == 12
    assert objects[:6] == objects[6:]
    assert set(objects[0]) == {"at", "task", "answer"}
    assert set(objects[5]) == {"at", "show", "result"}
    assert objects[5]["result"]["status"] == "NPB"


def test_command_exits_with_2_for_a_malformed_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("\n".join(NPB))
    bad.write_text(NPB[0] + "\n{nonsense")
    done = run("--answers", str(good), str(bad), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.jsonl, line 2" in done.stderr


@pytest.mark.long
def test_command_exits_with_2_for_a_missing_argument_unless_it_is_allowed(tmp_path: Path) -> None:
    story = tmp_path / "story.jsonl"
    story.write_text("\n".join([*NPB, line(FILED, "npb.remove", member_id="s")]))
    done = run("--answers", str(story), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "story.jsonl, line 6: npb.remove: order_id: is missing" in done.stderr
    done = run("--answers", "--allow-invalid", str(story), cwd=tmp_path)
    assert done.returncode == 0
    assert [json.loads(answer)["answer"]["outcome"] for answer in done.stdout.splitlines()] == [
        *["done"] * 5,
        "invalid",
    ]


@pytest.mark.parametrize(("options", "status"), [pytest.param((), 0, marks=pytest.mark.long), (("--strict",), 1)])
def test_strict_exits_with_1_after_a_refusal_and_both_name_its_line(
    tmp_path: Path, options: tuple[str, ...], status: int
) -> None:
    story = tmp_path / "story.jsonl"
    story.write_text("\n".join([*NPB, line(FILED + DAY, "orders.cancel", order_id=1003, member_id="s")]))
    done = run(*options, str(story), cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert "1 answer is not done:\n  line 6 was refused: " in done.stdout


@pytest.mark.long
def test_strict_exits_with_0_if_every_answer_is_done(tmp_path: Path) -> None:
    story = tmp_path / "story.jsonl"
    story.write_text("\n".join(NPB))
    done = run("--strict", str(story), cwd=tmp_path)
    assert (done.returncode, "not done" in done.stdout) == (0, False), done.stdout + done.stderr


@pytest.mark.long
def test_example_of_the_docs_ends_as_the_page_says(tmp_path: Path) -> None:
    """What is not done is counted at the end, and `--strict` makes it exit code 1."""
    page = (CHECKOUT / "docs" / "histories.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    story = tmp_path / "day-15.jsonl"
    story.write_text(example)
    done = run(str(story), cwd=tmp_path)
    assert done.returncode == 0
    assert "1 answer is not done:\n  line 7 was refused: " in done.stdout
    assert "Order 1003 is CANCELLED." in done.stdout
    assert "credited -20.00" in done.stdout
    strict = run("--strict", "--answers", str(story), cwd=tmp_path)
    assert (strict.returncode, len(strict.stdout.splitlines())) == (1, 8)
    early = json.loads(strict.stdout.splitlines()[5])["answer"]
    assert (early["code"], early["possible_from"]) == ("TOO_EARLY", "2026-04-11T10:00:00Z")
    wrong = example.replace(
        '"npb.file", "kwargs": {"order_id": 1003, "member_id"', '"npb.file", "kwargs": {"order_id": 1003, "member"'
    )
    (error,) = re.findall(r"^Error: (day-15.jsonl, .*)$", page, re.MULTILINE)
    with pytest.raises(replay.InvalidHistory, match=re.escape(error)):
        replay.check_history_arguments(replay.parse_lines(wrong.split("\n")), "day-15.jsonl")


@pytest.mark.long
def test_command_adopts_a_database_once(tmp_path: Path, empty_database_url: str) -> None:
    story = tmp_path / "story.jsonl"
    story.write_text("\n".join(NPB))
    address = empty_database_url.replace("postgresql+psycopg://", "postgres://")
    first = run("--answers", "--database-url", address, str(story), cwd=tmp_path)
    assert (first.returncode, len(first.stdout.splitlines())) == (0, len(NPB))
    second = run("--answers", "--database-url", address, str(story), cwd=tmp_path)
    assert (second.returncode, second.stdout) == (1, "")
    assert "not empty" in second.stderr
    result = run("--database-url", address, str(story), str(story), cwd=tmp_path)
    assert result.returncode == 2


def test_history_that_ends_in_the_future_is_adopted_with_a_warning(tmp_path: Path, empty_database_url: str) -> None:
    story = tmp_path / "story.jsonl"
    story.write_text(
        line(datetime(2150, 1, 1, tzinfo=UTC), "members.record", member_id="s", handle="S", email="s@x.org")
    )
    done = run("--answers", "--database-url", empty_database_url, str(story), cwd=tmp_path)
    assert done.returncode == 0
    assert "ends in the future" in done.stderr
