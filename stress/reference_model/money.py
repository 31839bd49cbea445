"""Fees, credits and bills of the reference model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

EASTERN = ZoneInfo("America/New_York")
NOTHING = Decimal("0.00")


def fee(total_usd: Decimal) -> Decimal:
    """Three slices, rounded once, half up (R82)."""
    if total_usd <= 500:
        exact = total_usd * Decimal("0.03")
    elif total_usd <= 1000:
        exact = 15 + (total_usd - 500) * Decimal("0.02")
    else:
        exact = 25 + (total_usd - 1000) * Decimal("0.01")
    return exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def billing_month(instant: datetime) -> str:
    """Return the calendar month in the billing zone, as `2026-03` (A6)."""
    return instant.astimezone(EASTERN).strftime("%Y-%m")


def next_month(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + 1}-01" if number == 12 else f"{year}-{number + 1:02}"


def issued_at(month: str) -> datetime:
    """The 5th of the next month in the billing zone (R92)."""
    first = date.fromisoformat(f"{next_month(month)}-01")
    return datetime(first.year, first.month, 5, tzinfo=EASTERN).astimezone(ZoneInfo("UTC"))


@dataclass(frozen=True)
class Posting:
    """One line of the ledger.  `charged` is the month of the original charge."""

    seller: str
    month: str
    kind: str
    order_id: int
    amount: Decimal
    charged: str


class Ledger:
    def __init__(self) -> None:
        self.postings: list[Posting] = []

    def post(self, seller: str, month: str, kind: str, order_id: int, amount: Decimal, charged: str) -> None:
        if amount:
            self.postings.append(Posting(seller, month, kind, order_id, amount, charged))

    def of_order(self, order_id: int) -> list[tuple[str, str, Decimal]]:
        return sorted((p.month, p.kind, p.amount) for p in self.postings if p.order_id == order_id)

    def listed_lines(self, seller: str, month: str) -> list[tuple[str, int, Decimal]]:
        """What the bill lists (R83): of an order that was reset, only what concerns earlier months."""
        held = [p for p in self.postings if (p.seller, p.month) == (seller, month)]
        reset = {p.order_id for p in held if p.kind == "reset"}
        return sorted(
            (p.kind, p.order_id, p.amount)
            for p in held
            if p.order_id not in reset or (p.kind == "reversal" and p.charged != month)
        )

    def bill(self, seller: str, month: str) -> dict[str, Decimal]:
        """Return `opening_credit`, `total` and `carried_forward` of a month (R91)."""
        at = min((p.month for p in self.postings if p.seller == seller), default=month)
        opening = NOTHING
        while True:
            sum_of_month = sum((p.amount for p in self.postings if (p.seller, p.month) == (seller, at)), NOTHING)
            left = opening + sum_of_month
            if at >= month:
                return {
                    "opening_credit": opening,
                    "total": max(NOTHING, left),
                    "carried_forward": min(NOTHING, left),
                }
            opening = min(NOTHING, left)
            at = next_month(at)
