"""Tests of the command `events`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.plugins.market import FILED, Market
from workers.cli.events import events


def test_a_reader_that_remembers_its_cursor_sees_each_event_once(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`./run events --after CURSOR --limit N --json`: pages of any size are the same feed."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", comment="a private word")
    whole = [json.loads(line) for line in CliRunner().invoke(events, ["--json"]).output.splitlines()]
    paged: list[dict[str, object]] = []
    while True:
        words = ["--json", "--limit", "2", *(["--after", str(paged[-1]["cursor"])] if paged else [])]
        page = CliRunner().invoke(events, words).output.splitlines()
        if not page:
            break
        assert len(page) <= 2
        paged += [json.loads(line) for line in page]
    assert paged == whole
    assert [line["event"]["type"] for line in whole][-1] == "npb.filed"
    assert "private" not in json.dumps(whole)


def test_people_read_a_line_an_event(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cursor, instant, what, whose."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003)
    said = CliRunner().invoke(events, []).output
    assert "orders.submitted" in said
    assert "order/1003" in said


@pytest.mark.parametrize("cursor", ["", "1", "x.1.1", "1.1.1;"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    """Exit code 2, before anything is looked at."""
    done = CliRunner().invoke(events, ["--after", cursor])
    assert done.exit_code == 2
    assert "no cursor" in done.output
