"""Tests of what the commands `pause` and `resume` refuse."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from models.db import database as db
from models.pauses import PauseRow
from tests.plugins.market import Market
from workers.cli import group


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pause", "queues.heartbeat"), "no queue or task queues.heartbeat that can be paused"),
        (("pause", "comands"), "no queue or task comands"),
        (("pause", "commands", "--until", "yesterday"), "--until"),
        (("pause", "commands", "--until", "2020-01-01T00:00:00Z"), "must be in the future"),
        (("resume", "commands"), "The queue commands is not paused."),
    ],
)
def test_unpausable_names_are_refused_with_the_reason(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    result = CliRunner().invoke(group, words)
    db.set_database(market.simulation.database)
    assert (result.exit_code != 0, message in result.stderr) == (True, True), result.stderr
    assert market.count(PauseRow) == 0
