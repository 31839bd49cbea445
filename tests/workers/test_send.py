"""Does `send` say what a person meant, and does `jobs` set going what was given up?"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner

from models import dead_jobs
from workers import wiring
from workers.app import app
from workers.cli.jobs import jobs
from workers.cli.send import arguments_of, send, value_of
from workers.stage import Stage


@pytest.mark.parametrize(
    ("written", "value"),
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
def test_values_are_numbers_truths_json_or_texts(written: str, value: Any) -> None:
    """Contract 2: money stays text, ids are numbers."""
    assert value_of(written) == value


def test_words_win_over_json() -> None:
    """`--json` for the large part, words for what changes."""
    assert arguments_of(("order_id=2",), '{"order_id": 1, "member_id": "s"}') == {"order_id": 2, "member_id": "s"}


@pytest.mark.parametrize(("words", "written"), [(("order_id",), None), (("=1",), None), ((), "[1]"), ((), "{")])
def test_what_is_no_argument_is_said_so(words: tuple[str, ...], written: str | None) -> None:
    """Exit code 2 with a sentence, not a traceback."""
    with pytest.raises(click.BadParameter):
        arguments_of(words, written)


@pytest.mark.parametrize(
    ("typed", "said"),
    [("npb.fil", "Did you mean npb.file"), ("qqq", "in contract/"), ("celery.ping", "There is no task")],
)
def test_an_unknown_task_is_said_so_with_what_may_be_meant(typed: str, said: str) -> None:
    """Nothing is sent, and the reader is told where names stand."""
    done = CliRunner().invoke(send, [typed, "order_id=1"])
    assert (done.exit_code, said in done.output) == (1, True), done.output


@pytest.fixture
def installation(
    stage: Stage,
    database_url: str,
    broker_url: str,
    result_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    """The environment names the test's servers."""
    for name, value in (
        ("DATABASE_URL", database_url),
        ("CELERY_BROKER_URL", broker_url),
        ("CELERY_RESULT_BACKEND", result_backend),
        ("UNWIND_DATA", str(tmp_path)),
    ):
        monkeypatch.setenv(name, value)
    wiring.settings.cache_clear()
    monkeypatch.setattr(app, "servers_found", False)
    return stage


def _parked(stage: Stage) -> int:
    with stage.database.transaction() as conn:
        return dead_jobs.park(
            conn,
            task="ocr.file",
            message_id="m-1",
            arguments={"order_id": 7, "comment": "private words"},
            error="KeyError at tasks/ocr.py:1 in file",
            attempts=9,
            now=stage.clock.instant,
        )


def test_dead_jobs_are_listed_without_their_words(installation: Stage) -> None:
    """P9: ids and codes only."""
    number = _parked(installation)
    shown = CliRunner().invoke(jobs, ["dead", "--json"])
    (told,) = [json.loads(line) for line in shown.output.splitlines()]
    assert (told["id"], told["task"], told["about"], told["attempts"]) == (number, "ocr.file", "order_id=7", 9)
    assert "private" not in shown.output


def test_a_dead_command_is_sent_again_with_its_own_request_id(installation: Stage, broker_url: str) -> None:
    """P2: whatever it had done before it was given up is not done twice."""
    number = _parked(installation)
    done = CliRunner().invoke(jobs, ["replay", str(number)])
    assert done.exit_code == 0, done.output
    app.pool.force_close_all()
    with redis.Redis.from_url(broker_url) as broker:
        (message,) = [json.loads(one) for one in broker.lrange("commands", 0, -1)]
    body = json.loads(base64.b64decode(message["body"]))
    assert message["headers"]["task"] == "ocr.file"
    assert body[1] == {"order_id": 7, "comment": "private words", "request_id": "m-1"}
    assert "private" not in str(message["headers"])
    again = CliRunner().invoke(jobs, ["replay", str(number)])
    assert "already" in again.output
