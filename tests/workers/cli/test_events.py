"""Tests of the command `events`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tests.plugins.market import FILED, Market
from workers.cli.events import events


def test_pages_by_cursor_contain_each_event_once(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of any size are the same feed."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", comment="a private word")
    all_events = [json.loads(line) for line in CliRunner().invoke(events, ["--json"]).output.splitlines()]
    paged: list[dict[str, object]] = []
    while True:
        words = ["--json", "--limit", "2", *(["--after", str(paged[-1]["cursor"])] if paged else [])]
        page = CliRunner().invoke(events, words).output.splitlines()
        if not page:
            break
        assert len(page) <= 2
        paged += [json.loads(line) for line in page]
    assert paged == all_events
    assert [line["event"]["type"] for line in all_events][-1] == "npb.filed"
    assert "private" not in json.dumps(all_events)


def test_text_output_has_one_line_per_event(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003)
    output = CliRunner().invoke(events, []).output
    assert "orders.submitted" in output
    assert "order/1003" in output


@pytest.mark.parametrize("cursor", ["", "1", "x.1.1", "1.1.1;"])
def test_invalid_cursor_is_refused(cursor: str) -> None:
    done = CliRunner().invoke(events, ["--after", cursor])
    assert done.exit_code == 2
    assert "no cursor" in done.output
