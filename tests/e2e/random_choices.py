"""What random histories choose from: beginnings, commands, arguments and terms."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from stress.reference_model.market import ALERT_STATUSES, FLOW, Settings
from stress.reference_model.stock import StockLot
from tests.e2e.compared_market import DAY

T = TypeVar("T")
BEGINNINGS = (
    datetime(2026, 3, 1, 4, 30, tzinfo=UTC),  # 28 February in the billing zone, and its clocks change on 8 March
    datetime(2026, 3, 28, 10, tzinfo=UTC),  # the days of the worked examples
    datetime(2026, 10, 27, 12, tzinfo=UTC),  # clocks go back on 1 November
    datetime(2026, 12, 26, 23, 59, 59, tzinfo=UTC),  # over the end of a year
    datetime(2028, 2, 24, tzinfo=UTC),  # over a leap day
)
ITEMS = (("3001", 5, "N"), ("3001", 5, "U"), ("", 0, "N"))
STATUSES = (*FLOW, "OCR", *ALERT_STATUSES, "CANCELLED")
PAYMENTS = ("None", "Pending", "Sent", "Received", "Completed")
COMMENTS = ("We spoke about it.", "It is this and nothing else.", " ", "\t\n")
PARTY_TASKS = (
    "ocr.file", "ocr.decline", "ocr.withdraw", "npb.file", "npb.respond", "npb.accept_penalty", "npb.take_back",
    "npb.remove", "nrs.file", "nrs.respond", "nrs.remove", "nss.file", "nss.respond", "nss.remove", "orders.cancel",
    "orders.set_status", "orders.settle_late_payment", "npb.extend", "orders.hold_automation",
    "orders.release_automation",
)  # fmt: skip
OPTIONAL_COMMENT = ("npb.file", "npb.remove", "nrs.remove", "nss.remove", "orders.cancel")
NEEDS_COMMENT = (
    "ocr.file", "npb.respond", "nrs.file", "nrs.respond", "nss.file", "nss.respond", "orders.settle_late_payment",
    "npb.extend", "orders.hold_automation", "orders.release_automation",
)  # fmt: skip
CLOSED = ("removals.approve", "removals.deny", "removals.withdraw")


def random_settings(choices: Choices) -> Settings:
    short = choices.of((7, 7, 3))
    return Settings(
        relock=choices.yes(),
        limit=choices.of((2, 3)),
        release=choices.yes(),
        file_after=choices.of((7, 7, 1)) * DAY,
        short=short * DAY,
        long=2 * short * DAY,
        silence=choices.of((None, None, ("decline", 3 * DAY), ("cancel", 5 * DAY))),
    )


class Choices:
    def __init__(self, seed: int, step: int) -> None:
        self._random = random.Random(f"{seed}/{step}")

    def of(self, choices: Iterable[T]) -> T:
        return self._random.choice(tuple(choices))

    def number(self, lower: int, upper: int) -> int:
        return self._random.randint(lower, upper)

    def yes(self) -> bool:
        return self._random.random() < 0.5


def lot_json(lot: StockLot) -> dict[str, Any]:
    tier = {"tier_quantity1": lot.tier[0], "tier_price1": str(lot.tier[1])} if lot.tier else {}
    return tier | {
        "lot_id": lot.lot_id,
        "seller_id": lot.seller,
        "item": {"no": lot.item[0], "type": "PART"},
        "color_id": lot.item[1],
        "new_or_used": lot.item[2],
        "quantity": lot.quantity,
        "unit_price": str(lot.price),
        "bulk": lot.bulk,
        "sale_rate": lot.sale,
        "is_retain": lot.retain,
        "is_stock_room": lot.room is not None,
        "stock_room_id": lot.room,
        "reserved_for": lot.reserved_for,
        "bind_id": lot.bind,
    }
