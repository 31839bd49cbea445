"""Tests of the commands `send` and `jobs`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner

from models import dead_jobs
from tests.plugins.servers import in_valkey_database
from workers.cli.jobs import jobs
from workers.cli.send import parse_argument_value, parse_command_arguments, send
from workers.simulation.engine import Simulation

sender: Any = importlib.import_module("workers.cli.send")  # `workers.cli.send` is also the name of the command


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ('"12"', "12"),
        ("20.00", "20.00"),
        ("s-881", "s-881"),
        ("[not json", "[not json"),
        ("", ""),
        ("1e9", "1e9"),
    ],
)
def test_values_are_parsed_as_numbers_booleans_json_or_text(text: str, value: Any) -> None:
    assert parse_argument_value(text) == value


def test_arguments_override_json() -> None:
    assert parse_command_arguments(("order_id=2",), '{"order_id": 1, "member_id": "s"}') == {
        "order_id": 2,
        "member_id": "s",
    }


@pytest.mark.parametrize(("words", "json_text"), [(("order_id",), None), (("=1",), None), ((), "[1]"), ((), "{")])
def test_invalid_argument_is_reported(words: tuple[str, ...], json_text: str | None) -> None:
    with pytest.raises(click.BadParameter):
        parse_command_arguments(words, json_text)


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [("npb.fil", "Did you mean npb.file"), ("qqq", "in contract/"), ("celery.ping", "There is no task")],
)
def test_unknown_task_is_reported_with_a_suggestion(typed: str, suggestion: str) -> None:
    done = CliRunner().invoke(send, [typed, "order_id=1"])
    assert (done.exit_code, suggestion in done.output) == (1, True), done.output


def _parked(simulation: Simulation) -> int:
    with simulation.database.transaction() as conn:
        return dead_jobs.park_job(
            conn,
            task="ocr.file",
            message_id="m-1",
            arguments={"order_id": 7, "comment": "private words"},
            error="KeyError at tasks/ocr.py:1 in file",
            attempts=9,
            now=simulation.clock.instant,
        )


def test_dead_jobs_are_listed_without_arguments(environment: Simulation) -> None:
    """P9: ids and codes only."""
    number = _parked(environment)
    result = CliRunner().invoke(jobs, ["dead", "--json"])
    (job,) = [json.loads(line) for line in result.output.splitlines()]
    assert (job["id"], job["task"], job["about"], job["attempts"]) == (number, "ocr.file", "order_id=7", 9)
    assert "private" not in result.output


def test_unusable_result_backend_is_reported_as_such(tmp_path: Path, broker_url: str) -> None:
    """The broker works; the result backend's database doesn't exist."""
    answers = in_valkey_database(broker_url, 9999)
    variables = {"CELERY_BROKER_URL": broker_url, "CELERY_RESULT_BACKEND": answers, "UNWIND_DATA": str(tmp_path)}
    words = [sys.executable, "-m", "workers", "send", "orders.cancel", "order_id=1", "member_id=s-1"]
    done = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "CELERY_RESULT_BACKEND cannot be used" in done.stderr
    with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
        assert client.llen("commands") == 0, "nothing was sent, as it says"
        subprocess.run([*words, "--no-wait"], env=os.environ | variables, capture_output=True, check=True, timeout=60)
        assert client.llen("commands") == 1


def test_answer_that_the_broker_lost_is_read_from_the_database(
    environment: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: no worker takes the message, as if its answer had been lost."""
    monkeypatch.setattr(sender, "POLL_INTERVAL", 0.2)
    words = ["members.record", "member_id=s-1", "handle=Sam", "email=sam@example.org"]
    arguments = parse_command_arguments(tuple(words[1:]), None)
    assert environment.execute("members.record", arguments, "r-1")["outcome"] == "done"
    done = CliRunner().invoke(send, [*words, "request_id=r-1", "--wait", "20"])
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["outcome"], answer["replayed"]) == (0, "done", True)
    assert re.search(r"Request r-1 was answered before, on \d+ \w+ 20[\d:, ]+ UTC: this is that", done.stderr)
    late_result = CliRunner().invoke(
        send, [*words[:2], "handle=Tom", "email=t@example.org", "request_id=r-1", "--wait", "20"]
    )
    assert json.loads(late_result.output)["code"] == "REQUEST_ID_REUSED", "never another command's answer"
    unknown = CliRunner().invoke(send, [*words, "request_id=r-2", "--wait", "0.5"])
    assert "show request r-2" in unknown.output
