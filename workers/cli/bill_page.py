"""How does a bill look to the seller who has to pay it?  A page and a plain text, from the JSON of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from policies.billing_months import month_name, parse_month
from policies.emails.email import sanitize_line

MAX_NOTE_LENGTH = 2200
"""A comment of staff may have 2,000 characters; around it stands who gave the credit and for which order."""

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"),
    undefined=StrictUndefined,
    autoescape=select_autoescape(disabled_extensions=("txt.j2",), default=True),  # all but the plain text is HTML
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render_html(bill: Mapping[str, Any]) -> str:
    """A page that stands alone: no script, nothing loaded, readable on paper and in the dark; everything is escaped."""
    return _environment.get_template("bill.html.j2").render(_facts(bill))


def render_text(bill: Mapping[str, Any]) -> str:
    """The same as plain text."""
    return _environment.get_template("bill.txt.j2").render(_facts(bill)).rstrip() + "\n"


def _facts(bill: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seller_id": sanitize_line(bill["seller_id"]),
        "month": month_name(parse_month(bill["billing_month"])),
        "state": bill["state"],
        "standing": _standing(bill),
        "lines": [_line(line) for line in bill["lines"]],
        "sums": _sums(bill),
    }


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "day": line["at"][:10],
        "order_id": line["order_id"],
        "note": sanitize_line(line["note"], MAX_NOTE_LENGTH),
        "amount": line["amount"],
        "charged_month": line["charged_month"],
        "credited_month": line["credited_month"],
    }


def _standing(bill: Mapping[str, Any]) -> str:
    """Where the bill stands, in a sentence."""
    if bill["state"] == "open":
        return "This bill is still open: it shows what is known so far."
    made = f"Made on {_day(bill['issued_on'])}."
    if bill["state"] == "paid":
        return f"{made} {'Nothing is to be paid.' if Decimal(bill['total']) == 0 else 'It is paid.'}"
    left = Decimal(bill["total"]) - Decimal(bill["paid"])
    if bill["state"] == "past_due":
        return (
            f"{made} It was due on {_day(bill['due_on'])} and is past due: {left} are to be paid. "
            f"The days of grace end on {_day(bill['grace_until'])}."
        )
    return f"{made} Please pay {left} by {_day(bill['due_on'])}."


def _sums(bill: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, amount, remark): what stands below the lines; rows of nothing are left out, the total never is."""
    total, paid, carried = Decimal(bill["total"]), Decimal(bill["paid"]), Decimal(bill["carried_forward"])
    opening = Decimal(bill["opening_credit"])
    rows = []
    if opening:
        rows.append(("Carried over", bill["opening_credit"], "from the bill before and from what was paid too much"))
    rows.append(("Total", bill["total"], ""))
    if paid:
        rows.append(("Paid", f"{-paid}", ""))
        if total > paid:
            rows.append(("Still to pay", f"{total - paid}", ""))
        if Decimal(bill["overpaid"]):
            rows.append(("Paid too much", bill["overpaid"], "credited on the next bill"))
    if carried:
        why = "your credit on the next bill" if carried < 0 else "too small to be billed alone; added to the next bill"
        rows.append(("Carried forward", bill["carried_forward"], why))
    return rows


def _day(written: str) -> str:
    """`2026-04-05` as people write it: 5 April 2026."""
    day = date.fromisoformat(written)
    return f"{day.day} {month_name(day)}"
