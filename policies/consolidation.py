"""The values of a lot after a returning item has been consolidated with it (R66 to R71).

Old values are the lot's, new values the returning item's.  Without a choice all values stay old; quantities are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Any

from policies.lots import Lot

TEXT_SEPARATOR = " | "
COST_QUANTUM = Decimal("0.0001")


class Choice(StrEnum):
    OLD = "old"
    NEW = "new"
    CONCATENATE = "concatenate"
    AVERAGE = "average"


CONSOLIDATED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "price": ("unit_price", "tiers"),  # R70: price and tiers go together
    "sale": ("sale_rate",),
    "bulk": ("bulk",),
    "description": ("description",),
    "remarks": ("remarks",),
    "cost": ("my_cost",),
    "weight": ("my_weight",),
    "retain": ("is_retain",),
    "stockroom": ("is_stock_room", "stock_room_id", "auto_stockroom"),
    "reserved": ("reserved_for",),
}
"""The groups of a lot's fields, of which each is consolidated by one choice."""


@dataclass(frozen=True, slots=True)
class LineEdit:
    delete: bool = False
    quantity: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choices:
    """The seller's decisions in steps 1 and 2.  `ONE_STEP` is a return without a draft."""

    consolidate: bool = True
    values: Mapping[str, Choice] = field(default_factory=dict)
    edits: Mapping[int, LineEdit] = field(default_factory=dict)


ONE_STEP = Choices()


def consolidate_values(lot: Lot, item: Lot, units: int, values: Mapping[str, Choice]) -> Lot:
    if not values:
        return lot.with_quantity(lot.quantity + units)
    changed: dict[str, Any] = {"quantity": lot.quantity + units}
    for group, choice in values.items():
        for name in CONSOLIDATED_FIELDS[group]:
            if choice is Choice.NEW:
                changed[name] = getattr(item, name)
            elif choice is Choice.CONCATENATE:
                changed[name] = concatenate(getattr(lot, name), getattr(item, name))
            elif choice is Choice.AVERAGE:
                changed[name] = average_cost(lot.my_cost, lot.quantity, item.my_cost, units)
    return replace(lot, **changed)


def concatenate(old: str, new: str) -> str:
    if not old or not new or old == new:
        return old or new
    return f"{old}{TEXT_SEPARATOR}{new}"


def average_cost(old: Decimal | None, old_units: int, new: Decimal | None, new_units: int) -> Decimal | None:
    """The unit cost weighted by quantity, half up to four decimals; an unknown cost has no weight."""
    known = [(cost, units) for cost, units in ((old, old_units), (new, new_units)) if cost is not None]
    units = sum(count for _, count in known)
    if not units:
        return old if old is not None else new
    total = sum((cost * count for cost, count in known), Decimal(0))
    return (total / units).quantize(COST_QUANTUM, rounding=ROUND_HALF_UP)
