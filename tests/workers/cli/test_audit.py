"""Tests of the command `audit`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from models.integrity.invariants import MONTHS_PROVEN
from tests.plugins.market import Market
from workers.cli.audit import audit
from workers.cli.show import show


@pytest.fixture
def books(market: Market, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Market:
    """A closed month with one bill of 20.00, in the database that commands meet."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003, [(market.lot(501, unit_price="750"), 1)])
    market.simulation.advance(datetime(2026, 4, 10, tzinfo=UTC))
    return market


def run(*words: str) -> Result:
    """`./run audit …`."""
    return CliRunner().invoke(audit, list(words))


@pytest.mark.usefixtures("books")
def test_a_month_that_is_right_gets_a_certificate() -> None:
    """Exit code 0; counts, sums and a fingerprint."""
    said = run("month", "2026-03")
    assert said.exit_code == 0, said.output
    assert "Month 2026-03 (closed)" in said.output
    assert "Every line and every bill is correct." in said.output
    certificate = json.loads(run("month", "2026-03", "--json").output)
    assert (certificate["holds"], certificate["billed"], certificate["differences"]) == (True, "20.00", [])
    assert certificate["hash"] in said.output


@pytest.mark.breaks_invariants("the books are falsified on purpose")
def test_a_month_that_is_wrong_names_the_rows(books: Market, database_url: str) -> None:
    """Exit code 1, in words and as JSON; the invariants find it too."""
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE unwind.ledger_lines SET amount = 19.99"))
    engine.dispose()
    said = run("month", "2026-03")
    assert said.exit_code == 1
    assert "the charge of 20.00 for order 1003 on the bill of seller is missing" in said.output
    assert "differ" in said.output
    assert run("month", "2026-03", "--json").exit_code == 1
    asked = run()
    assert asked.exit_code == 1
    assert "Per order the lines add up" in asked.output
    assert "The bills of every closed month" in asked.output
    assert books.done("audit.check_invariants")["violations"][MONTHS_PROVEN] == ["2026-03"]
    assert MONTHS_PROVEN not in books.done("audit.check_invariants")["violations"]  # a month's turn comes once an hour


@pytest.mark.parametrize("month", ["2026-13", "march", "2026-3", ""])
def test_what_is_no_month_is_refused(month: str) -> None:
    """Exit code 2 before anything is opened."""
    said = run("month", month)
    assert (said.exit_code, "must be a month such as 2026-03" in said.output) == (2, True)


@pytest.mark.usefixtures("books")
def test_a_bill_is_shown_as_a_page_and_as_words() -> None:
    """Issue of a bill to a person: one page that stands alone, or plain text."""
    page = CliRunner().invoke(show, ["bill", "seller", "2026-03", "--html"])
    assert (page.exit_code, page.output.startswith("<!DOCTYPE html>"), "20.00" in page.output) == (0, True, True)
    words = CliRunner().invoke(show, ["bill", "seller", "2026-03"])
    assert "Fee for order 1003, charged in March 2026." in words.output
    assert CliRunner().invoke(show, ["order", "1003", "--html"]).exit_code == 2
    assert CliRunner().invoke(show, ["bill", "nobody", "2026-03", "--html"]).exit_code == 1


@pytest.mark.usefixtures("books")
def test_a_month_that_has_not_begun_gets_no_certificate() -> None:
    """Nothing is proven of what is still to come."""
    said = run("month", "2999-01")
    assert (said.exit_code, said.output) == (1, "Error: 2999-01 has not begun, so there is nothing to prove.\n")
