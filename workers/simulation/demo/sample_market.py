"""The demo's marketplace: four stores with catalogue items, eight buyers and ten weeks of orders.

Its past is an ordinary history that ends now. `SampleMarket` lists what will happen next, so that the demo can act for
buyers and sellers and check the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partialmethod
from itertools import count
from typing import Any

from policies.timestamps import format_timestamp

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SELLERS = {
    "s-north": ("North Bricks", "Europe/Oslo"),
    "s-depot": ("Plate Depot", "America/Chicago"),
    "s-attic": ("Minifig Attic", "Asia/Tokyo"),
    "s-night": ("Night Shift Bricks", "Europe/Berlin"),
}
AUTOMATED_SELLER = "s-night"
"""The store that has its alerts filed and its unpaid orders cancelled without a person."""
BUYERS = ("castle_fan", "moc_maker", "train_yard", "space_base", "tiny_town", "gear_head", "tile_floor", "old_sets")
# Item number, type, colour, condition, unit price, and whether the lot is kept when it is sold out.
CATALOGUE = (
    ("3001", "PART", 5, "N", "0.1850", False),
    ("3003", "PART", 7, "N", "0.0920", False),
    ("3020", "PART", 86, "N", "0.0710", True),
    ("3023", "PART", 11, "U", "0.0240", False),
    ("3069b", "PART", 1, "N", "0.0550", True),
    ("32316", "PART", 11, "N", "0.0640", False),
    ("4073", "PART", 12, "U", "0.0180", False),
    ("3626bpb0001", "PART", 3, "U", "0.3200", False),
    ("cas001", "MINIFIG", 0, "U", "6.5000", True),
    ("sp005", "MINIFIG", 0, "U", "9.9000", False),
    ("6080-1", "SET", 0, "U", "189.0000", True),
    ("375-2", "SET", 0, "U", "640.0000", False),
)
UNPAID_ORDERS = 10
FIRST_DUE, BETWEEN_DUES = timedelta(seconds=16), timedelta(seconds=1)
"""The first alert falls due when the workers are up, `FIRST_DUE` after the end of the past; the others follow."""


@dataclass
class SampleMarket:
    lines: list[dict[str, Any]] = field(default_factory=list)
    sellers_cancel: set[int] = field(default_factory=set)
    sellers_remove: set[int] = field(default_factory=set)
    untouched: set[int] = field(default_factory=set)
    automatic: set[int] = field(default_factory=set)
    buyers_cancel: set[int] = field(default_factory=set)
    penalty_accepted: set[int] = field(default_factory=set)
    agreed_requests: set[int] = field(default_factory=set)
    declined_requests: set[int] = field(default_factory=set)
    parties: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def unlocking(self) -> set[int]:
        return self.sellers_cancel | self.sellers_remove | self.untouched | self.buyers_cancel | self.automatic

    @property
    def ending_cancelled(self) -> set[int]:
        by_people = self.sellers_cancel | self.buyers_cancel | self.penalty_accepted | self.agreed_requests
        return by_people | self.automatic


def build_sample_market(now: datetime) -> SampleMarket:
    return _MarketBuilder(now.replace(microsecond=0)).build()


class _MarketBuilder:
    def __init__(self, now: datetime) -> None:
        self.now = now
        self.sample = SampleMarket()
        self._events: list[tuple[datetime, dict[str, Any]]] = []
        self._orders = count(1001)
        self._lots: dict[str, list[int]] = {}

    def build(self) -> SampleMarket:
        self._members_and_lots(self.now - 75 * DAY)
        self._completed_orders()
        self._closed_cases()
        self._cases_about_to_unlock()
        self._cases_of_today()
        self._automatic_cases()
        self._events.sort(key=lambda event: event[0])
        self.sample.lines = [line for _, line in self._events]
        return self.sample

    def _add(self, at: datetime, task: str, **kwargs: Any) -> None:
        self._events.append((at, {"at": format_timestamp(at), "task": task, "kwargs": kwargs}))

    def _members_and_lots(self, at: datetime) -> None:
        for seller_id, (handle, zone) in SELLERS.items():
            email = f"{seller_id}@sellers.example"
            self._add(at, "members.record", member_id=seller_id, handle=handle, email=email, time_zone=zone)
        for handle in BUYERS:
            self._add(at, "members.record", member_id=f"b-{handle}", handle=handle, email=f"{handle}@buyers.example")
        lot_ids = count(50_001)
        for seller_id in SELLERS:
            for item_no, kind, color, condition, price, retained in CATALOGUE:
                lot_id = next(lot_ids)
                self._lots.setdefault(seller_id, []).append(lot_id)
                lot = {
                    "lot_id": lot_id,
                    "seller_id": seller_id,
                    "item": {"no": item_no, "type": kind},
                    "color_id": color,
                    "quantity": 5000 if kind == "PART" else 40,
                    "new_or_used": condition,
                    "completeness": "C" if kind == "SET" else None,
                    "unit_price": price,
                    "is_retain": retained,
                    "remarks": f"shelf {lot_id % 40 + 1}",
                }
                self._add(at, "inventory.record_lot", lot=lot)

    def _place_order(self, at: datetime, seller_id: str | None = None) -> int:
        # Three lots of parts and one minifigure or set.
        order_id = next(self._orders)
        seller_id = seller_id or list(SELLERS)[order_id % 3]
        buyer_id = f"b-{BUYERS[(order_id // 3) % len(BUYERS)]}"
        parts, larger = self._lots[seller_id][:8], self._lots[seller_id][8:]
        lines = [
            {"lot_id": parts[(order_id + step) % 8], "quantity": 10 + order_id * (step + 3) % 90} for step in (0, 3, 5)
        ]
        lines.append({"lot_id": larger[order_id % 4], "quantity": 1})
        self.sample.parties[order_id] = (seller_id, buyer_id)
        self._add(at, "orders.submit", order_id=order_id, buyer_id=buyer_id, seller_id=seller_id, lines=lines)
        return order_id

    def _by_party(self, party: int, at: datetime, task: str, order_id: int, **kwargs: Any) -> None:
        self._add(at, task, order_id=order_id, member_id=self.sample.parties[order_id][party], **kwargs)

    _by_seller, _by_buyer = partialmethod(_by_party, 0), partialmethod(_by_party, 1)

    def _completed_orders(self) -> None:
        for number in range(22):
            at = self.now - (70 - 2.7 * number) * DAY
            order_id = self._place_order(at)
            self._add(at + 5 * HOUR, "orders.record_payment", order_id=order_id, payment_status="Completed")
            self._by_seller(at + 6 * HOUR, "orders.set_status", order_id, status="PAID")
            self._by_seller(at + DAY, "orders.set_status", order_id, status="SHIPPED")
            self._by_buyer(at + 6 * DAY, "orders.set_status", order_id, status="COMPLETED")

    def _closed_cases(self) -> None:
        # Add cancelled orders of past months, so that the bills show credits.
        for days_ago in (66, 58):
            order_id = self._place_order(self.now - days_ago * DAY)
            self._by_seller(self.now - (days_ago - 8) * DAY, "npb.file", order_id)
            self._by_seller(self.now - (days_ago - 15) * DAY, "orders.cancel", order_id)
        order_id = self._place_order(self.now - 45 * DAY)
        self._by_buyer(
            self.now - 44 * DAY, "ocr.file", order_id, reason="B_SELLER_NO_STOCK", comment="They wrote that it is gone."
        )
        self._by_seller(self.now - 43 * DAY, "orders.cancel", order_id)

    def _cases_about_to_unlock(self) -> None:
        # Add alerts that fall due one after the other during the demo, most on orders of an earlier month.
        dues = (self.now + FIRST_DUE + number * BETWEEN_DUES for number in count())
        for number in range(UNPAID_ORDERS):
            answered = number % 4 == 3
            filed = next(dues) - (14 if answered else 7) * DAY
            order_id = self._place_order(filed - (26 + number) * DAY)
            if number % 3 == 0:
                lines = [{"line_no": 1, "quantity": 2}]
                self._by_buyer(filed - 2 * DAY, "removals.request", order_id, lines=lines)
            self._by_seller(filed, "npb.file", order_id, comment="No payment and no word.")
            if answered:
                self._by_buyer(filed + 2 * DAY, "npb.respond", order_id, comment="I will pay at the end of the month.")
            {8: self.sample.sellers_remove, 9: self.sample.untouched}.get(number, self.sample.sellers_cancel).add(
                order_id
            )
        filed = next(dues) - 14 * DAY
        order_id = self._place_order(filed - 12 * DAY)
        self._add(filed - 11 * DAY, "orders.record_payment", order_id=order_id, payment_status="Completed")
        self._by_buyer(filed, "nss.file", order_id, grounds="NOT_SHIPPED", comment="Paid, and nothing was sent.")
        self.sample.buyers_cancel.add(order_id)

    def _cases_of_today(self) -> None:
        order_id = self._place_order(self.now - 12 * DAY)
        self._by_seller(self.now - 3 * DAY, "npb.file", order_id)
        self.sample.penalty_accepted.add(order_id)
        for number, order_ids in enumerate((self.sample.agreed_requests, self.sample.declined_requests)):
            order_id = self._place_order(self.now - (3 + number) * DAY)
            self._by_buyer(self.now - DAY, "removals.request", order_id, lines=[{"line_no": 2, "quantity": 1}])
            order_ids.add(order_id)
        for hours in range(6):
            self._place_order(self.now - (7 - hours) * HOUR)

    def _automatic_cases(self) -> None:
        # Add an unpaid order that nobody looks after: its alert is filed in the past, and it is cancelled in the demo.
        settings = {"file_npb_after": 7, "cancel_after_unlock": 0}
        self._add(self.now - 74 * DAY, "sellers.set_automation", member_id=AUTOMATED_SELLER, **settings)
        cancelled_at = self.now + FIRST_DUE + (UNPAID_ORDERS + 1) * BETWEEN_DUES
        self.sample.automatic.add(self._place_order(cancelled_at - 14 * DAY, AUTOMATED_SELLER))
