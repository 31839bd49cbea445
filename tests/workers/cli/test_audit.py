"""Tests of the command `audit`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from models.integrity.invariants import MONTHS_INVARIANT
from tests.plugins.market import Market
from workers.cli.audit import audit
from workers.cli.show import show


@pytest.fixture
def closed_month_market(market: Market, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Market:
    """A closed month with one bill of 20.00."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003, [(market.lot(501, unit_price="750"), 1)])
    market.simulation.advance(datetime(2026, 4, 10, tzinfo=UTC))
    return market


def run(*words: str) -> Result:
    """`./run audit …`."""
    return CliRunner().invoke(audit, list(words))


@pytest.mark.usefixtures("closed_month_market")
def test_correct_month_gets_a_certificate() -> None:
    result = run("month", "2026-03")
    assert result.exit_code == 0, result.output
    assert "Month 2026-03 (closed)" in result.output
    assert "Every line and every bill is correct." in result.output
    certificate = json.loads(run("month", "2026-03", "--json").output)
    assert (certificate["holds"], certificate["billed"], certificate["differences"]) == (True, "20.00", [])
    assert certificate["hash"] in result.output


@pytest.mark.usefixtures("closed_month_market")
def test_answer_without_violations_says_how_much_was_examined() -> None:
    result = run()
    assert (result.exit_code, run("--json").exit_code) == (0, 0)
    assert re.fullmatch(r"\d\d invariants over 1 order and 1 closed month: nothing is wrong\.\n", result.output)


@pytest.mark.breaks_invariants("the ledger is falsified on purpose")
def test_manipulated_month_names_the_rows(closed_month_market: Market, database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE unwind.ledger_lines SET amount = 19.99"))
    engine.dispose()
    result = run("month", "2026-03")
    assert result.exit_code == 1
    assert "the charge of 20.00 for order 1003 on the bill of seller is missing" in result.output
    assert "differ" in result.output
    assert run("month", "2026-03", "--json").exit_code == 1
    invariants_result = run()
    assert invariants_result.exit_code == 1
    assert "Per order the lines add up" in invariants_result.output
    assert "The bills of every closed month" in invariants_result.output
    assert closed_month_market.done("audit.check_invariants")["violations"][MONTHS_INVARIANT] == ["2026-03"]
    # Each month is proven once an hour.
    assert MONTHS_INVARIANT not in closed_month_market.done("audit.check_invariants")["violations"]


@pytest.mark.parametrize("month", ["2026-13", "march", "2026-3", ""])
def test_invalid_month_is_refused(month: str) -> None:
    result = run("month", month)
    assert (result.exit_code, "a billing month is written like 2026-03" in result.output) == (2, True)


@pytest.mark.usefixtures("closed_month_market")
def test_bill_is_shown_as_page_and_as_text() -> None:
    page = CliRunner().invoke(show, ["bill", "seller", "2026-03", "--html"])
    assert (page.exit_code, page.output.startswith("<!DOCTYPE html>"), "20.00" in page.output) == (0, True, True)
    words = CliRunner().invoke(show, ["bill", "seller", "2026-03"])
    assert "Fee for order 1003, charged in March 2026." in words.output
    assert CliRunner().invoke(show, ["order", "1003", "--html"]).exit_code == 2
    assert CliRunner().invoke(show, ["bill", "nobody", "2026-03", "--html"]).exit_code == 1


@pytest.mark.usefixtures("closed_month_market")
def test_future_month_gets_no_certificate() -> None:
    result = run("month", "2999-01")
    assert (result.exit_code, result.output) == (1, "Error: 2999-01 has not begun, so there is nothing to prove.\n")
