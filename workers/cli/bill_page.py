"""Renders a bill as an HTML page or as plain text for the seller."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from policies.bills import month_name, parse_month
from policies.emails.email import sanitize_email_line
from workers.mail.mime_message import mail_template_environment

MAX_BILL_PAGE_NOTE_LENGTH = 2200  # a staff comment of up to 2,000 characters, with the order and who gave the credit
BILL_PAGE_NOTE_INDENT = 26  # the width of the columns before the notes of the plain text

_bill_page_templates = mail_template_environment(Path(__file__).parent / "pages")
_bill_page_templates.filters["wrapped"] = lambda note: textwrap.fill(
    note, 80, initial_indent=" " * BILL_PAGE_NOTE_INDENT, subsequent_indent=" " * BILL_PAGE_NOTE_INDENT
).lstrip()


def render_html(bill: Mapping[str, Any]) -> str:
    return _bill_page_templates.get_template("bill.html.j2").render(_bill_page_values(bill))


def render_text(bill: Mapping[str, Any]) -> str:
    return _bill_page_templates.get_template("bill.txt.j2").render(_bill_page_values(bill)).rstrip() + "\n"


def _bill_page_values(bill: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seller_id": sanitize_email_line(bill["seller_id"]),
        "month": month_name(parse_month(bill["billing_month"])),
        "state": bill["state"],
        "status": _bill_status_sentence(bill),
        "lines": [
            {**line, "day": line["at"][:10], "note": sanitize_email_line(line["note"], MAX_BILL_PAGE_NOTE_LENGTH)}
            for line in bill["lines"]
        ],
        "sums": _bill_sums(bill),
    }


def _bill_status_sentence(bill: Mapping[str, Any]) -> str:
    if bill["state"] == "open":
        return "This bill is still open and shows the lines known so far."
    issued = f"Issued on {_bill_page_date(bill['issued_on'])}."
    if bill["state"] == "paid":
        return f"{issued} {'There is nothing to pay.' if Decimal(bill['total']) == 0 else 'Paid in full.'}"
    amount_due = Decimal(bill["total"]) - Decimal(bill["paid"])
    if bill["state"] == "past_due":
        return (
            f"{issued} It was due on {_bill_page_date(bill['due_on'])} and is past due. "
            f"Please pay {amount_due} USD now. The grace period ends on {_bill_page_date(bill['grace_until'])}."
        )
    return f"{issued} Please pay {amount_due} USD by {_bill_page_date(bill['due_on'])}."


def _bill_sums(bill: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    total, paid, carried = Decimal(bill["total"]), Decimal(bill["paid"]), Decimal(bill["carried_forward"])
    why = "credited on your next bill" if carried < 0 else "below the minimum bill, added to your next bill"
    opening = bill["opening_credit"]
    rows = (
        (Decimal(opening), "Carried over", opening, "from the previous bill and from overpayments"),
        (True, "Total", bill["total"], ""),
        (paid, "Paid", f"{-paid}", ""),
        (paid and total > paid, "Left to pay", f"{total - paid}", ""),
        (paid and Decimal(bill["overpaid"]), "Overpaid", bill["overpaid"], "credited on your next bill"),
        (carried, "Carried forward", bill["carried_forward"], why),
    )
    return [(label, amount, note) for shown, label, amount, note in rows if shown]


def _bill_page_date(text: str) -> str:
    day = date.fromisoformat(text)
    return f"{day.day} {month_name(day)}"
