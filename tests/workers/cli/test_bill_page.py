"""Tests of a bill as HTML page and plain text: rows, sums, status sentences and escaping."""

from __future__ import annotations

from datetime import date
from html.parser import HTMLParser
from typing import Any

import pytest

from models import bills
from tests.plugins.market import Market
from workers.cli.bill_page import render_html, render_text

VOID = {"meta", "br"}


class Page(HTMLParser):
    """A strict reader: tags must be closed in order; collects the text of each cell."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def a_bill(**fields: Any) -> dict[str, Any]:
    """An issued bill with one charge of 20.00."""
    line = {
        "kind": "charge",
        "order_id": 1003,
        "amount": "20.00",
        "note": "Fee for order 1003, charged in March 2026.",
        "at": "2026-03-28T10:00:00Z",
        "charged_month": "2026-03",
        "credited_month": None,
    }
    return {
        "seller_id": "s-881",
        "billing_month": "2026-03",
        "state": "issued",
        "issued_on": "2026-04-05",
        "due_on": "2026-05-05",
        "grace_until": "2026-05-15",
        "currency": "USD",
        "opening_credit": "0.00",
        "lines": [line],
        "total": "20.00",
        "carried_forward": "0.00",
        "paid": "0.00",
        "overpaid": "0.00",
    } | fields


def test_page_has_a_row_for_each_line_and_the_sums() -> None:
    page = Page(render_html(a_bill(opening_credit="-5.00", total="15.00", paid="5.00")))
    assert page.rows[1:] == [
        ["2026-03-28", "1003", "Fee for order 1003, charged in March 2026.", "2026-03", "", "20.00"],
        ["Carried over from the previous bill and from overpayments", "-5.00"],
        ["Total", "15.00"],
        ["Paid", "-5.00"],
        ["Left to pay", "10.00"],
    ]


def test_plain_text_has_the_same_content() -> None:
    assert render_text(a_bill()) == (
        "Bill for March 2026, s-881 (US dollars)\n"
        "Issued on 5 April 2026. Please pay 20.00 USD by 5 May 2026.\n"
        "\n"
        "       20.00  2026-03-28  Fee for order 1003, charged in March 2026.\n"
        "       20.00  Total\n"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"state": "open", "issued_on": None, "due_on": None}, "still open"),
        ({}, "Please pay 20.00 USD by 5 May 2026."),
        ({"paid": "5.00"}, "Please pay 15.00 USD by 5 May 2026."),
        ({"state": "past_due"}, "Please pay 20.00 USD now. The grace period ends on 15 May 2026."),
        ({"state": "paid", "paid": "20.00"}, "Paid in full."),
        ({"state": "paid", "total": "0.00", "lines": []}, "There is nothing to pay."),
    ],
)
def test_state_of_a_bill_is_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    """R92: open, issued, paid, past due and in grace."""
    assert sentence in render_html(a_bill(**fields))
    assert sentence in render_text(a_bill(**fields))


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"carried_forward": "-15.00", "total": "0.00"}, ["Carried forward credited on your next bill", "-15.00"]),
        (
            {"carried_forward": "3.00", "total": "0.00"},
            ["Carried forward below the minimum bill, added to your next bill", "3.00"],
        ),
        ({"paid": "32.50", "overpaid": "12.50"}, ["Overpaid credited on your next bill", "12.50"]),
    ],
)
def test_carried_amounts_are_explained(fields: dict[str, Any], row: list[str]) -> None:
    """R91: the minimum bill and overpayments."""
    assert Page(render_html(a_bill(**fields))).rows[-1] == row


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{7*7}}",
        "</table></main>",
        "a\u202eb",
        "a\nb\tc\x07",
    ],
)
def test_comments_cannot_change_the_page(text: str) -> None:
    """HTML, templates and direction overrides in a comment are shown as text."""
    line = a_bill()["lines"][0] | {"kind": "manual_credit", "note": text}
    clean, dirty = Page(render_html(a_bill())), Page(render_html(a_bill(lines=[line], seller_id=f"s{text}")))
    assert dirty.tags == clean.tags
    assert "49" not in render_text(a_bill(lines=[line]))
    assert "\x07" not in render_text(a_bill(lines=[line]))


def test_bill_from_the_database_can_be_rendered(market: Market) -> None:
    market.order(1003, [(market.lot(501, unit_price="750"), 1)])
    market.done(
        "credits.post_manual", seller_id="seller", amount="2.00", staff="kim", comment="<b>sorry</b>", order_id=1003
    )
    with market.simulation.database.transaction() as conn:
        bill = bills.load_bill_json(conn, "seller", date(2026, 3, 1), market.simulation.clock.instant)
    assert bill is not None
    assert [row[-1] for row in Page(render_html(bill)).rows] == ["Amount", "20.00", "-2.00", "18.00"]
    assert "by staff (kim): <b>sorry</b>" in " ".join(render_text(bill).split())
