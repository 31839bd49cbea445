"""The lines, prices and total of a purchase (`orders.submit` and `orders.add_batch`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from policies.cases import Member
from policies.fees import CENT, to_usd
from policies.lots import Lot
from policies.texts import pluralize
from policies.verdicts import Code, Invalid, Refused

MAX_LINES = 1000
"""Lines that one command names."""
PURCHASE_PRICE_QUANTUM = Decimal("0.0001")
MAX_ORDER_TOTAL = Decimal(10) ** 12
"""In the seller's currency, and in US dollars. A plausibility limit on the total; the columns hold more."""


@dataclass(frozen=True, slots=True)
class PurchasedLine:
    lot: Lot
    quantity: int
    unit_price: Decimal


def price_purchase(
    lines: Sequence[tuple[int, int]], lots: Mapping[int, Lot], buyer: Member, seller_id: str
) -> tuple[PurchasedLine, ...] | Refused | Invalid:
    """Price the (lot_id, quantity) lines.  Lots of other stores and lots the buyer cannot see are unknown.

    A lot is sold in multiples of its `bulk`, or down to its last unit (R105).
    """
    visible_to_buyer = (None, buyer.handle, buyer.member_id)
    for lot_id, _ in lines:
        lot = lots.get(lot_id)
        if not lot or lot.seller_id != seller_id or lot.is_stock_room or lot.reserved_for not in visible_to_buyer:
            return Refused(Code.LOT_UNKNOWN, f"Lot {lot_id} is not for sale to this buyer in this store.")
    left = {lot_id: lots[lot_id].quantity for lot_id, _ in lines}
    for index, (lot_id, quantity) in enumerate(lines):
        bulk = lots[lot_id].bulk
        if quantity % bulk and quantity != left[lot_id]:
            return Invalid(
                f"lines.{index}.quantity",
                f"must be a multiple of {bulk}, as the lot is sold in bulk, or all that is left of it",
            )
        left[lot_id] -= quantity
    for lot_id, units in left.items():
        if units < 0:
            return Refused(
                Code.NOT_ENOUGH_STOCK,
                f"Lot {lot_id} has {pluralize(lots[lot_id].quantity, 'unit', 'units')}, fewer than requested.",
                unblocked_by="the seller adding stock",
            )
    return tuple(
        PurchasedLine(lots[lot_id], quantity, line_price(lots[lot_id], quantity)) for lot_id, quantity in lines
    )


def line_price(lot: Lot, quantity: int) -> Decimal:
    """The unit price for `quantity` units: the tier's or the unit price, less the sale, half up to 4 decimals."""
    price = lot.unit_price
    for from_quantity, tier_price in lot.tiers:
        if quantity >= from_quantity:
            price = tier_price
    return (price * (100 - lot.sale_rate) / 100).quantize(PURCHASE_PRICE_QUANTUM, rounding=ROUND_HALF_UP)


def sum_goods(lines: Iterable[tuple[int, Decimal]]) -> Decimal:
    return sum((units * price for units, price in lines), Decimal(0))


def check_order_total(total: Decimal, usd_rate: Decimal, *, is_new: bool) -> Invalid | None:
    if total >= MAX_ORDER_TOTAL:
        return Invalid("lines", "come to more than an order may be worth")
    if to_usd(total, usd_rate) < MAX_ORDER_TOTAL:
        return None
    if is_new:
        return Invalid("usd_rate", "makes the order worth more US dollars than an order may be worth")
    return Invalid("lines", "come to more US dollars than an order may be worth")


def describe_purchase(lines: Sequence[PurchasedLine]) -> str:
    units = sum(line.quantity for line in lines)
    return f"{pluralize(units, 'unit', 'units')} in {pluralize(len(lines), 'lot', 'lots')}"


def format_total(total: Decimal) -> str:
    cents = total.quantize(CENT)
    return str(cents) if cents == total else f"{total.normalize():f}"
