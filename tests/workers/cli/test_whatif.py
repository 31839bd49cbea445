"""Tests of `whatif`: what is recorded, replayed under other terms."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from benchmarks.market import Market as BulkMarket
from benchmarks.market import build
from models.db import database as db
from models.events import EventRow
from models.queries.whatif import FETCH_SIZE, load_recorded_conditions, load_recorded_extent, replay_cases
from policies.automation_settings import AutomationSetting
from policies.terms import OcrSilenceTerm
from policies.timestamps import format_timestamp
from policies.whatif import WhatIfConditions
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from tests.plugins.servers import fresh_database, libpq_url
from tests.whatif import list_differences_without_a_reason
from workers.cli import group
from workers.embedded.client import ServerUrls
from workers.simulation.demo.sample_market import build_sample_market
from workers.simulation.engine import Simulation
from workers.simulation.replay import parse_lines, play

DAY = timedelta(days=1)
LAST = FILED + 6 * WEEK

Try = Callable[..., Result]


@pytest.fixture
def try_terms(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Try]:
    """Try terms on orders that were cancelled through NPB, answered, left alone, and paid; and on a later one."""
    for order_id in (1, 2, 3, 4):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3, 4):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.at(FILED + DAY).done("npb.respond", order_id=2, member_id="buyer", comment="on Friday")
    market.at(FILED + 2 * DAY).done("npb.remove", order_id=4, member_id="seller")
    market.done("orders.record_payment", order_id=4, payment_status="Received")
    market.simulation.advance(FILED + 8 * DAY)
    market.done("orders.cancel", order_id=1, member_id="seller")
    market.simulation.advance(LAST)
    market.order(5, buyer_id="stranger")
    monkeypatch.setenv("DATABASE_URL", database_url)
    file = tmp_path / "terms.toml"

    def run(settings: str, *words: str) -> Result:
        file.write_text(settings, encoding="utf-8")
        return CliRunner().invoke(group, ["whatif", str(file), *words])

    yield run
    db.set_database(market.simulation.database)


def differences(result: Result) -> dict[int, dict[str, Any]]:
    """For each order that differs, what would be different."""
    assert result.exit_code == 0, result.output
    return {
        case["order_id"]: {name: case["would_be"][name] for name in case["differences"]}
        for case in json.loads(result.stdout)["cases"]
    }


@pytest.mark.parametrize("settings", ["", "file_npb_after = false"])
def test_nothing_is_different_under_what_was_in_force(try_terms: Try, settings: str) -> None:
    result = try_terms(settings)
    assert result.output.startswith("Nothing would have been different: 16 events of 5 orders, up to 16 May 2026")


def test_the_demo_is_replayed_as_it_was(simulation: Simulation) -> None:
    """With sellers who have automation; cancelling a day after the filing would have cancelled more orders."""
    lines = parse_lines(json.dumps(line) for line in build_sample_market(LAST).lines)
    simulation.clock.instant = lines[0].at
    assert all(played.result["outcome"] == "done" for played in play(lines, simulation))
    with simulation.database.transaction() as conn:
        assert load_recorded_extent(conn)[0] > 50
        assert list_differences_without_a_reason(conn) == []
        recorded = load_recorded_conditions(conn)
        periods = [(begin, replace(terms, npb_unlock_no_response=DAY)) for begin, terms in recorded.periods]
        tried = WhatIfConditions(periods, {"cancel_after_unlock": AutomationSetting(0, LAST - 52 * WEEK)})
        replayed = list(replay_cases(conn, recorded, tried, LAST))
    newly_cancelled = [was.cancelled_at is None and would_be.cancelled_at for _, was, would_be in replayed]
    assert any(newly_cancelled)
    assert not any(would_be.cancelled_at is None and was.cancelled_at for _, was, would_be in replayed)


def test_an_act_that_is_too_early_is_done_when_it_becomes_possible(try_terms: Try) -> None:
    """The seller who cancelled a day after the unlock would have cancelled at the later unlock."""
    unlocked = format_timestamp(FILED + 10 * DAY)
    assert differences(try_terms('NPB_UNLOCK_NO_RESPONSE = "10d"', "--json")) == {
        1: {"unlocked": [{"kind": "NPB", "at": unlocked}], "cancelled": {"basis": "NPB", "at": unlocked}},
        3: {"unlocked": [{"kind": "NPB", "at": unlocked}]},
    }


def test_what_follows_a_later_filing_is_later_too(try_terms: Try) -> None:
    """The answer comes after the filing, and a filing that was taken back before is not made."""
    filing, unlocked = format_timestamp(FILED + 3 * DAY), format_timestamp(FILED + 10 * DAY)
    filed, answered = [{"kind": "NPB", "at": filing}], [{"kind": "NPB", "at": format_timestamp(FILED + 17 * DAY)}]
    unanswered = [{"kind": "NPB", "at": unlocked}]
    assert differences(try_terms('NPB_FILE_AFTER = "10d"', "--json")) == {
        1: {"filed": filed, "unlocked": unanswered, "cancelled": {"basis": "NPB", "at": unlocked}},
        2: {"filed": filed, "unlocked": answered},
        3: {"filed": filed, "unlocked": unanswered},
        4: {"filed": []},
    }


def test_automation_is_tried_on_the_past(try_terms: Try) -> None:
    """R116: the order that was left alone and the one that was answered would have been cancelled."""
    result = try_terms("cancel_after_unlock = 3", "--json")
    assert differences(result) == {
        order_id: {
            "cancelled": {"basis": "NPB", "at": format_timestamp(FILED + days * DAY)},
            "strike": "buyer",
            "fee": "0.00",
        }
        for order_id, days in ((2, 17), (3, 10))
    }
    totals = json.loads(result.stdout)["totals"]
    assert totals["cancelled"] == totals["strikes"] == {"was": 1, "would_be": 3}
    assert totals["fee"] == {"was": "1.20", "would_be": "0.60", "difference": "-0.60"}


def test_terms_are_tried_from_a_day_on(try_terms: Try) -> None:
    """The settings act on what is open on that day; terms apply to what is filed from then on."""
    since = format_timestamp(FILED + 14 * DAY + DAY / 24)
    assert differences(
        try_terms('cancel_after_unlock = 0\nNPB_UNLOCK_RESPONSE = "30d"', "--since", since, "--json")
    ) == {
        order_id: {"cancelled": {"basis": "NPB", "at": since}, "strike": "buyer", "fee": "0.00"} for order_id in (2, 3)
    }
    assert differences(try_terms("cancel_after_unlock = 0", "--since", "2026-06-01", "--json")) == {}


def test_fees_are_charged_by_the_other_slices(try_terms: Try) -> None:
    """R82, R93: also what is given back."""
    result = try_terms('FEE_SLICES = [{rate = "0.10"}]', "--json")
    assert differences(result) == {order_id: {"fee": "1.00"} for order_id in (2, 3, 4, 5)}


def test_text_and_json_output_are_deterministic(try_terms: Try, market: Market) -> None:
    before = market.content(EventRow)
    for words in ([], ["--json"]):
        first, second = (try_terms("cancel_after_unlock = 3", *words).output for _ in range(2))
        assert first == second
    assert market.content(EventRow) == before
    text = try_terms("cancel_after_unlock = 3").output
    assert "Order 2 (seller seller, buyer buyer)\n  cancelled: NPB 21 Apr 2026, 10:00 UTC instead of never\n" in text
    assert "2 orders would have been different: 16 events of 5 orders" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("NPB_FILE_AFTER = 7", "NPB_FILE_AFTER: must be a duration"),
        ('NPB_UNLOCK_RESPONSE = "1d"', "NPB_UNLOCK_RESPONSE: must not be shorter"),
        ("cancel_after_unlock = 31", "cancel_after_unlock: must be at most 30"),
        ("cancel_after_unlock = 1.5", "cancel_after_unlock: must be a whole number"),
        ("exclude_buyers = []", "exclude_buyers: there is no such setting"),
        ("member_id = 'x'", "member_id: there is no such setting"),
        ("[cancel_after_unlock]", "cancel_after_unlock: must be a whole number"),
        ("no toml", "cannot be read"),
    ],
)
def test_bad_files_are_named(try_terms: Try, settings: str, words: str) -> None:
    result = try_terms(settings)
    assert result.exit_code == 1
    assert words in result.output


def test_bad_arguments_are_named(try_terms: Try, tmp_path: Path) -> None:
    for since in ("yesterday", "2026-13-01", "2026-02-30", ""):
        assert try_terms("", "--since", since).exit_code == 2
    assert CliRunner().invoke(group, ["whatif", str(tmp_path / "missing.toml")]).exit_code == 2


@pytest.mark.long
def test_memory_does_not_grow_with_the_market(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str
) -> None:
    """Three times the orders, all of them different, take the memory of two fetches from the database."""
    peaks = []
    for orders in (2 * FETCH_SIZE, 6 * FETCH_SIZE):
        with fresh_database(servers, admin, template_database) as url:
            with psycopg.connect(libpq_url(url), autocommit=True) as conn:
                build(conn, BulkMarket(orders, lines=0))
            database = db.connect(url)
            with database.transaction() as read:
                recorded = load_recorded_conditions(read)
                tried = WhatIfConditions(recorded.periods, {"cancel_after_unlock": AutomationSetting(0, ORDERED)})
                tracemalloc.start()
                replayed = replay_cases(read, recorded, tried, LAST + 365 * DAY)
                assert sum(was != would_be for _, was, would_be in replayed) == orders
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
            database.dispose()
    assert peaks[1] < 1.3 * peaks[0]


def test_requests_that_nobody_answered_are_resolved(market: Market) -> None:
    """R117, R123: a setting answers at once and a term after a while; the answers that automation gave stay."""
    market.done("sellers.set_automation", member_id="other_seller", agree_to_requests_within=24)
    market.order(1)
    market.order(2, [(market.lot(9, seller_id="other_seller"), 10)], seller_id="other_seller")
    for order_id in (1, 2):
        market.done("ocr.file", order_id=order_id, member_id="buyer", reason="B_MUTUAL", comment="please")
    market.simulation.advance(ORDERED + WEEK)
    assert [market.status(order_id) for order_id in (1, 2)] == ["OCR", "CANCELLED"]
    silence = OcrSilenceTerm(agrees=False, after=2 * DAY)
    with market.simulation.database.transaction() as conn:
        assert list_differences_without_a_reason(conn) == []
        recorded = load_recorded_conditions(conn)
        declining = WhatIfConditions(
            [(begin, replace(terms, ocr_silence=silence)) for begin, terms in recorded.periods]
        )
        agreeing = WhatIfConditions(recorded.periods, {"agree_to_requests_within": AutomationSetting(0, ORDERED)})
        off = WhatIfConditions(recorded.periods, {"agree_to_requests_within": None})
        cancelled = [
            [would_be.cancelled_at for _, _, would_be in replay_cases(conn, recorded, tried, ORDERED + WEEK)]
            for tried in (declining, agreeing, off)
        ]
    assert cancelled == [[None, ORDERED], [ORDERED, ORDERED], [None, None]]
