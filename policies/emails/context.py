"""The facts for an email, and timestamps, days and amounts formatted for the reader.

Month and day names are constants, so that the machine's locale cannot change an email.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from policies.bills import month_name
from policies.emails.email import Email, Paragraphs, Quote, build_email
from policies.texts import capital, pluralize
from policies.timestamps import parse_timestamp, round_up_timestamp

EMAIL_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class EmailContext:
    """One event for one recipient.  `facts` may have unknown keys and may lack optional ones.

    `zone` is the recipient's time zone; `buyer` and `seller` are the parties' sanitized handles, or empty.
    """

    event: str
    role: str
    order_id: int | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    buyer: str = ""
    seller: str = ""

    @property
    def order(self) -> str:
        return "your order" if self.order_id is None else f"order {self.order_id}"

    @property
    def the_buyer(self) -> str:
        return f"the buyer ({self.buyer})" if self.buyer else "the buyer"

    @property
    def the_seller(self) -> str:
        return f"the seller ({self.seller})" if self.seller else "the seller"

    def text(self, name: str) -> str:
        value = self.facts.get(name)
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        return self.facts.get(name) is True

    def timestamp(self, name: str) -> str:
        text = self.text(name)
        return format_email_timestamp(parse_timestamp(text), self.zone) if text else ""

    def days(self) -> str:
        days = self.text("days")
        return pluralize(int(days), "day", "days") if days.isdecimal() and days != "0" else ""

    def payment_recorded(self) -> str:
        status = self.text("payment_status")
        return f"marked as {status}" if status else "recorded"

    def when(self, name: str, sentence: str, otherwise: str = "") -> str:
        """Return the sentence with this timestamp for its `{}`, or the other one if the fact is missing."""
        timestamp = self.timestamp(name)
        return sentence.replace("{}", timestamp) if timestamp else otherwise

    def email(
        self, news: str, happened: Paragraphs, means: Paragraphs, to_do: Paragraphs = (), *, quoted: str = ""
    ) -> Email:
        """Build an email about the order; `quoted` is who wrote the comment, if it is to be quoted."""
        comment = self.text("comment")
        quote = Quote(capital(quoted), comment) if quoted and comment.strip() else None
        subject = capital(news) if self.order_id is None else f"Order {self.order_id}: {news}"
        return build_email(subject, happened, means, to_do, quote)


def format_email_timestamp(instant: datetime, zone: str) -> str:
    """`Saturday, 11 April 2026, 10:00 (UTC)`; other zones also say how far they are from UTC at that instant.

    Fractions of a second round up, so that the time is never too early.
    """
    instant = round_up_timestamp(instant)
    try:
        local, name = instant.astimezone(ZoneInfo(zone)), zone
    except (ValueError, OSError, KeyError):  # a zone that this installation does not know
        local, name = instant.astimezone(ZoneInfo("UTC")), "UTC"
    clock = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    offset = "" if name == "UTC" else f", UTC{local:%z}"
    if offset:
        offset = f"{offset[:-2]}:{offset[-2:]}"
    return f"{format_email_day(local.date())}, {clock} ({name}{offset})"


def format_email_day(day: date) -> str:
    return f"{EMAIL_WEEKDAYS[day.weekday()]}, {day.day} {month_name(day)}"


def format_email_amount(amount: str) -> str:
    return f"USD {amount.lstrip('-')}"
