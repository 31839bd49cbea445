"""Tests of the commands `show`, `explain` and `terms`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from models.db import database as db
from policies.options import ACTIONS
from policies.terms import TERM_INFO
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, Market
from workers.cli import group
from workers.cli.show import SHOWN_LINES
from workers.cli.terminal_text import escape_for_terminal
from workers.show_queries import nouns, parse_query

DAY = timedelta(days=1)


@pytest.fixture
def typed(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type a command against a marketplace with an order in NPB and one that was cancelled."""
    market.order(1003)
    market.order(1004)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", request_id="r-1")
    market.done("ocr.file", order_id=1004, member_id="seller", reason="S_MUTUAL", comment="agreed by mail")
    market.done("orders.cancel", order_id=1004, member_id="seller")
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*words: str) -> Result:
        return CliRunner().invoke(group, words)

    yield run
    db.set_database(market.simulation.database)


def test_lots_in_json_have_the_format_of_every_show_command(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one lot, several, none, and an unknown seller: a large store is printed while it is read."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    for lots in range(3):
        if lots:
            market.lot(lots, description="a\nb", color_id=lots)
        output = CliRunner().invoke(group, ["show", "lots", "seller", "--json"]).stdout
        db.set_database(market.simulation.database)
        with market.read() as conn:
            expected = parse_query(["lots", "seller"]).read(conn, market.simulation.clock.instant)
        assert output == json.dumps(expected, indent=2) + "\n"
    assert CliRunner().invoke(group, ["show", "lots", "nobody", "--json"]).stdout == "null\n"
    db.set_database(market.simulation.database)


def test_json_option_prints_the_query_result(typed: Any) -> None:
    """`--json`, anywhere among the words."""
    assert json.loads(typed("show", "order", "1003", "--json").output)["status"] == "NPB"
    assert json.loads(typed("show", "--json", "order", "1003").output)["status"] == "NPB"
    then = format_timestamp(ORDERED)
    assert json.loads(typed("show", "order", "1003", "--at", then, "--json").output)["status"] == "PENDING"
    seen = json.loads(typed("explain", "order", "1003", "--json").output)
    assert {"order_id", "status", "at", "seller", "buyer"} <= set(seen)
    assert json.loads(typed("show", "order", "9", "--json").output) is None


@pytest.mark.parametrize("code_page", ["latin-1", "ascii"])
def test_a_terminal_without_the_letters_shows_their_numbers(typed: Any, database_url: str, code_page: str) -> None:
    """The arrow of a change of status is in neither code page; it ended in UnicodeEncodeError."""
    assert "→" in typed("show", "order", "1004").output
    words = [sys.executable, "-m", "workers", "show", "order", "1004"]
    theirs = {"DATABASE_URL": database_url, "PYTHONIOENCODING": code_page}
    done = subprocess.run(words, env=os.environ | theirs, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"[OCR \\u2192 CANCELLED]" in done.stdout


def test_show_prints_the_timeline_of_an_order(typed: Any) -> None:
    """Someone who was not there understands it."""
    output = " ".join(typed("show", "order", "1004").output.split())
    for words in (
        "Order 1004 is CANCELLED.",
        "on the ground OCR_SELLER",
        ", unpaid).",
        "10 × part 3001 in colour 5 of lot 501004",
        "10 returned to lot",
        "Buyer (buyer) bought from Seller (seller)",
        "Cancel request of the seller: agreed",
        "because both sides agree to call the order off: agreed by mail",
        "[OCR → CANCELLED]",
    ):
        assert words in output, output


def test_support_reads_out_what_can_be_done(typed: Any) -> None:
    """Possible or not, the sentence, the instant, and what would change it."""
    output = " ".join(typed("explain", "order", "1003", "--all", "--at", format_timestamp(FILED)).output.split())
    assert "The seller cannot cancel yet." in output
    assert "can accept the penalty (npb.accept_penalty). Possible now." in output
    assert re.search(r"cannot cancel the order \(orders\.cancel\)( or [^:]*)?: The alert was filed on", output), output
    assert "Possible from 11 Apr 2026, 10:00 UTC." in output


def test_explain_gives_each_reason_once_per_role(typed: Any) -> None:
    output = typed("explain", "order", "1003", "--all").output
    options = json.loads(typed("explain", "order", "1003", "--json").output)
    sellers_part, buyers_part = (" ".join(part.split()) for part in output.split("\nThe buyer\n"))
    for role, part in (("seller", sellers_part), ("buyer", buyers_part)):
        reasons = Counter(
            f"{o['why']} What would change it: {o['unblocked_by']}."
            for o in options[role]
            if not o["possible"]
            and o["code"] not in ("WRONG_ROLE", "NO_LATE_PAYMENT")
            and o["unblocked_by"]
            and not o["possible_from"]
        )
        assert max(reasons.values()) > 1
        assert {reason: part.count(reason) for reason in reasons} == dict.fromkeys(reasons, 1)


def test_explain_prints_the_route_first_and_impossible_actions_only_with_all(typed: Any) -> None:
    first = " ".join(typed("explain", "order", "1003", "--at", format_timestamp(FILED)).output.split())
    assert "so order 1003 can be cancelled from 11 Apr 2026, 10:00 UTC. If the buyer answers, from 18 Apr 2026" in first
    assert "can accept the penalty" in first
    assert "cannot cancel the order" not in first
    assert re.search(r"With --all: why \d+ other actions are not possible\.$", first.strip())
    routes = json.loads(typed("explain", "order", "1003", "--at", format_timestamp(FILED), "--json").output)["routes"]
    assert [(route["possible_from"], route["if_answered"]) for route in routes] == [
        ("2026-04-11T10:00:00Z", "2026-04-18T10:00:00Z")
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("lots", "seller"),
        ("bill", "seller", "2026-03"),
        ("member", "buyer"),
        ("notices", "--order", "1003"),
        ("alerts", "--due-before", "2026-05-01T00:00:00Z"),
        ("request", "r-1"),
    ],
)
def test_every_query_has_a_text_page(typed: Any, words: tuple[str, ...]) -> None:
    """Text is the default."""
    done = typed("show", *words)
    assert (done.exit_code, bool(done.output.strip())) == (0, True), done.output


def test_unknown_ids_and_commands_are_reported(typed: Any) -> None:
    """Exit 1: there is none; exit 2: there is no such query."""
    missing = typed("show", "order", "9")
    assert (missing.exit_code, "There is no order 9" in missing.output) == (1, True)
    assert "no member nobody" in typed("show", "lots", "nobody").output
    assert "no bill of seller for 2999-01" in typed("show", "bill", "seller", "2999-01").output
    assert "There is no answer for request r-9" in typed("show", "request", "r-9").output
    assert "no order 9." in typed("explain", "order", "9").output
    wrong = typed("show", "horse", "9")
    assert wrong.exit_code == 2
    assert "No such command 'horse'" in wrong.output


def test_help_lists_what_can_be_shown(typed: Any) -> None:
    page = typed("show", "--help").output
    for noun, command in nouns.commands.items():
        if noun != "explain":
            assert re.search(rf"^  {noun} +{re.escape(command.get_short_help_str(100))}$", page, re.MULTILINE), noun
            assert typed("show", noun, "--help").exit_code == 0
    assert "--at T" in typed("show", "order", "--help").output
    assert "--at T" in typed("explain", "order", "--help").output
    assert "--xml" not in typed("show", "order", "--help").output


def test_order_at_another_time_is_shown_with_that_time(typed: Any) -> None:
    """`--at`: before there was an order, while it was there, and when nobody can know yet."""
    before = typed("show", "order", "1003", "--at", "2020-01-01T00:00:00Z")
    assert (before.exit_code, "There was no order 1003 at 1 Jan 2020, 00:00 UTC." in before.output) == (1, True)
    assert "There was no order 1003" in typed("explain", "order", "1003", "--at", "2020-01-01T00:00:00Z").output
    then = typed("show", "order", "1003", "--at", "2026-04-04T12:00:00Z")
    assert then.output.startswith("As of 4 Apr 2026, 12:00 UTC:"), then.output
    assert typed("show", "order", "1003", "--at", "2999-01-01T00:00:00Z").output.startswith(
        "That time is in the future."
    )


def test_terms_are_applied_from_a_file(typed: Any, tmp_path: Any) -> None:
    """`./run terms apply FILE --from DATE`, a date being midnight of the billing zone, and `terms show`."""
    file = tmp_path / "terms.toml"
    file.write_text('STRIKE_LIMIT = 4\nNPB_FILE_AFTER = "3d"\n')
    done = typed("terms", "apply", str(file), "--from", "2100-07-01", "--staff", "kim")
    assert "From 1 Jul 2100, 04:00 UTC on:" in done.output, done.output
    shown = json.loads(typed("terms", "show", "--json").output)
    assert shown["now"]["STRIKE_LIMIT"] == 3
    (dated,) = shown["dated"]
    assert (dated["from"], dated["terms"]["STRIKE_LIMIT"], dated["applied_by"]) == ("2100-07-01T04:00:00Z", 4, "kim")
    assert "New terms apply from 1 Jul 2100, 04:00 UTC" in typed("terms", "show").output


def test_terms_are_explained_where_they_are_shown_and_applied(typed: Any) -> None:
    shown, help_page = typed("terms", "show").output, typed("terms", "apply", "--help").output
    for name, info in TERM_INFO.items():
        for page in (shown, help_page):
            assert name in page
            assert info.about in " ".join(page.split()), name


def test_terms_that_cannot_be_kept_are_refused_with_their_reason(typed: Any, tmp_path: Any) -> None:
    """The setting and the sentence."""
    file = tmp_path / "terms.toml"
    file.write_text('NPB_UNLOCK_NO_RESPONSE = "5s"\n')
    done = typed("terms", "apply", str(file), "--from", "2100-07-01")
    assert done.exit_code == 1
    assert "terms.NPB_UNLOCK_NO_RESPONSE: must be at least 60 seconds" in done.output


def test_escape_sequences_in_comments_are_not_executed() -> None:
    """Escape sequences and direction overrides in comments are shown, not obeyed."""
    assert escape_for_terminal({"note": ["a\x1b[31mb", "c\u202ed", "e\nf", 5]}) == {
        "note": ["a<U+001B>[31mb", "c<U+202E>d", "e f", 5]
    }


@pytest.mark.parametrize("words", ["show order", "jobs dead-letters requeue", "keys list", "replay", "import-orders"])
def test_every_command_takes_a_data_directory(typed: Any, words: str) -> None:
    assert "--data DIR" in typed(*words.split(), "--help").output


def test_every_action_has_a_label_and_every_query_a_page() -> None:
    assert all(action.label for action in ACTIONS.values())
    assert set(SHOWN_LINES) == set(nouns.commands)
