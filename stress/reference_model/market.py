"""State and vocabulary of the reference model, an independent implementation of the rules.

It shares no code with the product.  Every command of the Problem Order page is a method `<noun>_<verb>` that changes
nothing and returns an `Answer` with the change to apply.  Timestamps are aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from stress.reference_model.money import NOTHING, Ledger, billing_month
from stress.reference_model.money import fee as fee_of
from stress.reference_model.stock import Stock, StockLot

WEEK = timedelta(days=7)
FLOW = ("PENDING", "UPDATED", "PROCESSING", "READY", "PAID", "PACKED", "SHIPPED", "RECEIVED", "COMPLETED")
OCR_FROM = ("PENDING", "UPDATED", "PROCESSING", "READY", "PACKED")
ADD_TO = ("PENDING", "UPDATED", "PROCESSING", "READY")
ALERT_STATUSES = ("NPB", "NPX", "NRS", "NSS")
SELLER_SETS = ("PROCESSING", "READY", "PAID", "PACKED", "SHIPPED", "COMPLETED")
BUYER_SETS = {"RECEIVED": ("SHIPPED",), "COMPLETED": ("SHIPPED", "RECEIVED")}
REASONS = {
    "buyer": ("B_MUTUAL", "B_SELLER_SILENT", "B_NOT_SHIPPED", "B_OTHER"),
    "seller": ("S_MUTUAL", "S_NOT_PAID", "S_BUYER_CHANGED_MIND", "S_BUYER_FOUND_ELSEWHERE", "S_NO_STOCK", "S_OTHER"),
}
NO_REASONS = {"buyer": ("B_CHANGED_MIND", "B_FOUND_CHEAPER"), "seller": ("S_CHANGED_MIND", "S_FEE_AVOIDANCE")}


@dataclass(frozen=True)
class Answer:
    """The answer to a command.  `do` applies its change."""

    outcome: str
    code: str | None = None
    possible_from: datetime | None = None
    do: Callable[[], Any] = lambda: None


def refuse(code: str, possible_from: datetime | None = None) -> Answer:
    return Answer("refused", code, possible_from)


def accept(do: Callable[[], Any]) -> Answer:
    return Answer("done", do=do)


INVALID = Answer("invalid")


@dataclass(frozen=True)
class Automation:
    """What happens in a seller's name without a person (R114)."""

    file_after: timedelta | None = None
    cancel_after: timedelta | None = None
    agree_within: timedelta | None = None
    excluded: frozenset[str] = frozenset()


@dataclass
class Member:
    terminated: bool = False
    can_buy: bool = True
    can_sell: bool = True
    bought_badly: list[int] = field(default_factory=list)
    sold_badly: list[int] = field(default_factory=list)
    automation: Automation = Automation()


@dataclass(frozen=True)
class Settings:
    relock: bool = False
    limit: int = 3
    release: bool = False
    file_after: timedelta = WEEK
    short: timedelta = WEEK
    long: timedelta = 2 * WEEK
    silence: tuple[str, timedelta] | None = None
    """What answers a buyer's request that nobody answers ("cancel" or "decline"), and after how long (R123)."""


@dataclass
class Alert:
    kind: str
    filed: datetime
    terms: Settings
    state: str = "open"
    responded: datetime | None = None
    accepted: datetime | None = None
    unlocked: datetime | None = None
    extended: datetime | None = None

    def unlocks(self) -> datetime:
        """The unlock time by the rules' formula (A1)."""
        if self.kind != "NPB":
            return self.filed + self.terms.long
        base = self.filed + self.terms.short
        if self.responded is not None and (self.terms.relock or self.responded < base):
            base = self.filed + self.terms.long
        if self.extended is not None:
            base = max(base, self.extended)  # R122
        return base if self.accepted is None else min(self.accepted, base)


@dataclass
class CancelRequest:
    by: str
    back_to: str
    filed: datetime
    terms: Settings
    state: str = "open"


@dataclass
class Line:
    sold: StockLot
    quantity: int
    price: Decimal
    removed: int = 0
    returned: int = 0

    @property
    def remaining(self) -> int:
        return self.quantity - self.removed


@dataclass
class Removal:
    order_id: int
    by: str
    lines: dict[int, int]
    returns: bool | None
    state: str = "pending"


@dataclass
class LatePayment:
    """A payment that came after the cancellation (R107)."""

    payment: str
    settled: bool = False

    def __str__(self) -> str:
        return f"{self.payment} {'settled' if self.settled else 'open'}"


@dataclass
class Order:
    order_id: int
    buyer: str
    seller: str
    rate: Decimal
    date: datetime
    lines: dict[int, Line]
    status: str = "PENDING"
    payment: str = "None"
    fee: Decimal = NOTHING
    fee_month: str = ""
    alert: Alert | None = None
    ocr: CancelRequest | None = None
    npb_filed: datetime | None = None
    held: bool = False
    held_until: datetime | None = None
    basis: str | None = None
    late: list[LatePayment] = field(default_factory=list)

    @property
    def open_late(self) -> LatePayment | None:
        return self.late[-1] if self.late and not self.late[-1].settled else None

    @property
    def paid(self) -> bool:
        """A claimed payment (Sent) does not count (R23)."""
        return self.payment in ("Received", "Completed")

    @property
    def open_alert(self) -> Alert | None:
        return self.alert if self.alert and self.alert.state == "open" else None

    @property
    def open_request(self) -> CancelRequest | None:
        return self.ocr if self.ocr and self.ocr.state == "open" else None

    @property
    def total(self) -> Decimal:
        return sum((line.remaining * line.price for line in self.lines.values()), Decimal(0))


class State:
    def __init__(self, terms: Settings) -> None:
        self.terms = terms
        self._terms_since: list[tuple[datetime, Settings]] = []
        self.people: dict[str, Member] = {}
        self.stock = Stock()
        self.orders: dict[int, Order] = {}
        self.removals: dict[int, Removal] = {}
        self.ledger = Ledger()

    def apply_terms(self, terms: Settings, at: datetime) -> None:
        self._terms_since.append((at, terms))
        self.terms = terms

    def terms_at(self, at: datetime) -> Settings:
        """What applied when something happened, also if it is only known now (`occurred_at`)."""
        return next((terms for since, terms in reversed(self._terms_since) if since <= at), self.terms)

    def role(self, order: Order, actor: str | None) -> str | None:
        return "staff" if actor is None else {order.buyer: "buyer", order.seller: "seller"}.get(actor)

    def gate(self, order_id: int, actor: str | None, *roles: str) -> Answer | Order:
        """Refuse in this order: unknown, not a party, cancelled, wrong role."""
        order = self.orders.get(order_id)
        if order is None:
            return refuse("ORDER_UNKNOWN")
        if actor is not None and actor not in self.people:
            return refuse("MEMBER_UNKNOWN")
        role = self.role(order, actor)
        if role is None:
            return refuse("NOT_A_PARTY")
        if order.status == "CANCELLED":
            return refuse("ALREADY_CANCELLED")
        return order if role in roles else refuse("WRONG_ROLE")

    def charge(self, order: Order, kind: str, at: datetime) -> None:
        """Charge the order's fee and reverse the previous charge (A21, R88)."""
        if order.fee_month:
            self.ledger.post(order.seller, billing_month(at), "reversal", order.order_id, -order.fee, order.fee_month)
        order.fee, order.fee_month = fee_of(order.total * order.rate), billing_month(at)
        self.ledger.post(order.seller, order.fee_month, kind, order.order_id, order.fee, order.fee_month)

    def judge_privilege(self, member: str, limit: int) -> None:
        """Revoke the privilege at the strike limit of the alert's terms (R95, R96)."""
        person = self.people[member]
        person.can_buy = len(person.bought_badly) < limit
        person.can_sell = len(person.sold_badly) < limit

    def scan(self, started: datetime, now: datetime) -> None:
        """Mark due alerts as sweeps do: each at its instant, or at `started` when it was late (R41, R42)."""
        for order in self.orders.values():
            alert = order.open_alert
            if alert is None or alert.unlocked is not None or order.status == "NPX":
                continue
            due = alert.unlocks()
            if due <= now:
                alert.unlocked = max(due, started)


def clear_unlock_mark(order: Order, at: datetime) -> None:
    """Clear an unlock mark that is later than a command which would have prevented it (R40)."""
    alert = order.alert
    if alert is None or alert.unlocked is None or alert.unlocked <= at:
        return
    if alert.state != "open" or order.status == "NPX" or alert.unlocks() > alert.unlocked:
        alert.unlocked = None


def is_blank(comment: str | None) -> bool:
    return comment is not None and not comment.strip()


def check_reason(role: str, reason: str, comment: str | None) -> Answer | None:
    """Refuse missing, foreign and invalid reasons (R4 to R8)."""
    counterparty = "seller" if role == "buyer" else "buyer"
    if reason in REASONS[counterparty] + NO_REASONS[counterparty]:
        return refuse("REASON_OF_OTHER_PARTY")
    if reason in NO_REASONS[role]:
        return refuse("REASON_NOT_VALID")
    if reason not in REASONS[role]:
        return refuse("REASON_UNKNOWN")
    if reason.endswith("_OTHER") and len((comment or "").strip()) < 20:
        return refuse("COMMENT_REQUIRED")
    return None
