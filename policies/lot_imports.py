"""Rules for each entry of a lot file: which lot it means, and what it changes. An omitted field is no empty one.

An entry describes a new lot, changes a known one, or is an update (a signed difference in quantity, a deletion).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from policies.lots import (
    SOLD_OUT_STOCKROOM,
    TIER_FIELDS,
    Lot,
    LotKey,
    find_lot_problems,
    find_lot_tier_gaps,
    is_marketplace_number,
    lot_tiers_from_fields,
    plain_lot_key,
)
from policies.returns import may_be_return_target
from policies.texts import pluralize, replace_non_xml_characters

MAX_LOT_ID = 2**63 - 1
MAX_COLOR_ID = 2**31 - 1
MAX_IDENTIFIER_LENGTH = 64
REQUIRED_FIELDS = ("item_type", "item_no", "new_or_used", "quantity")
"""Fields required of an item that is not an update; `color_id` too, where the item type has colours."""


class ExistingItems(StrEnum):
    NEW = "new"
    CONSOLIDATE = "consolidate"
    REPLACE = "replace"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class LotEntry:
    """One item of a file, in position `number` from 1. `fields` has only the fields in the file, by the names of `Lot`.

    `lot_id` is 0 without a number. Tiers are six fields, as in `Lot.snapshot`.
    """

    number: int
    line: int | None
    lot_id: int
    fields: Mapping[str, Any]
    quantity_change: int | None = None
    deletes: bool = False
    is_update: bool = False

    def __str__(self) -> str:
        """Return the place and the item, such as `item 2 (line 3, lot 8402, PART 3001)`."""
        item = f"{self.fields.get('item_type', '')} {self.fields.get('item_no', '')}".strip()
        parts = [f"line {self.line}" if self.line else "", f"lot {self.lot_id}" if self.lot_id else "", item]
        known = ", ".join(part for part in parts if part)
        return f"item {self.number} ({known})" if known else f"item {self.number}"

    def key(self, seller_id: str) -> LotKey:
        given = self.fields
        return LotKey(
            seller_id,
            given["item_type"],
            given["item_no"],
            given.get("color_id", 0),
            given["new_or_used"],
            given.get("completeness"),
        )

    @property
    def has_marketplace_number(self) -> bool:
        return is_marketplace_number(self.lot_id)

    def as_new_lot(self, seller_id: str, lot_id: int) -> Lot:
        values = {"color_id": 0, "unit_price": 0} | self._values_without_tiers()
        if values.get("is_stock_room"):
            values.setdefault("stock_room_id", SOLD_OUT_STOCKROOM)
        return Lot(**values, lot_id=lot_id, seller_id=seller_id, tiers=lot_tiers_from_fields(self.fields))

    def applied_to(self, lot: Lot) -> Lot:
        values = self._values_without_tiers()
        if "is_stock_room" in values:
            in_same_room = values["is_stock_room"] and lot.is_stock_room
            room = SOLD_OUT_STOCKROOM if values["is_stock_room"] else None
            values.setdefault("stock_room_id", lot.stock_room_id if in_same_room else room)
        if any(name in self.fields for name in TIER_FIELDS):
            values["tiers"] = lot_tiers_from_fields(self._tiers_over(lot))
        if self.quantity_change is not None:
            values["quantity"] = lot.quantity + self.quantity_change
        return replace(lot, **{k: v for k, v in values.items() if not _is_same_lot_value(k, v, getattr(lot, k))})

    def find_problems(self, lot: Lot, known: Lot | None) -> list[str]:
        tiers = self._tiers_over(known) if known else self.fields
        problems = [*_lot_entry_range_problems(lot), *find_lot_problems(lot), *find_lot_tier_gaps(tiers)]
        return [f"{name} {sentence}" for name, sentence in problems]

    def _values_without_tiers(self) -> dict[str, Any]:
        return {name: value for name, value in self.fields.items() if name not in TIER_FIELDS}

    def _tiers_over(self, lot: Lot) -> dict[str, Any]:
        return {name: self.fields.get(name, value) for name, value in lot.tier_fields.items()}


@dataclass(frozen=True, slots=True)
class BadEntry:
    entry: LotEntry
    reason: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.reason}"


@dataclass(slots=True)
class LotEntryMatcher:
    """Finds the lot of the store that an entry without a known number means.

    No lot is found twice, except to add to it, and none that another item of the file names (`is_named`).
    """

    how: ExistingItems | None
    is_named: Callable[[Lot], bool]
    _claimed: set[int] = field(default_factory=set)
    _added_to: set[int] = field(default_factory=set)

    def find(self, entry: LotEntry, candidates: Iterable[Lot]) -> Lot | None:
        """Choose among the lots with the entry's key: equal values first, then for sale, then the lowest id.

        An entry with a number of the marketplace can only mean a lot that has none yet.
        """
        consolidates = self.how is ExistingItems.CONSOLIDATE
        adds = consolidates and not entry.has_marketplace_number
        unavailable = self._claimed if adds else self._claimed | self._added_to
        fitting = [
            lot
            for lot in candidates
            if lot.lot_id not in unavailable
            and not (entry.has_marketplace_number and is_marketplace_number(lot.lot_id))
            and not self.is_named(lot)
            and (lot.has_catalogue_item or has_same_values(entry, lot))
            and (not consolidates or may_be_return_target(lot))
        ]
        best = min(
            fitting, key=lambda lot: (not has_same_values(entry, lot), lot.is_stock_room, lot.lot_id), default=None
        )
        if best is not None:
            (self._added_to if adds else self._claimed).add(best.lot_id)
        return best


def has_same_values(entry: LotEntry, lot: Lot) -> bool:
    return replace(entry.applied_to(lot), quantity=lot.quantity) == lot


def names_lot(entry: LotEntry, known: Lot | None) -> bool:
    """Return whether the entry's number means this lot.

    A number that Unwind gave means a lot only where the store has it as the same item: the file may come from another
    installation, and a number that is free here belongs to the next return.
    """
    if not entry.lot_id:
        return False
    if entry.has_marketplace_number or entry.is_update:
        return True
    return known is not None and plain_lot_key(known.key) == plain_lot_key(entry.key(known.seller_id))


def update_problem(entry: LotEntry, lot: Lot) -> str | None:
    described = ", ".join(
        f"{name} {entry.fields[name]}"
        for name in ("item_type", "item_no", "color_id")
        if entry.fields.get(name, getattr(lot, name)) != getattr(lot, name)
    )
    if described:
        item = f"{lot.item_type} {lot.item_no} in colour {lot.color_id}"
        return f"lot {lot.lot_id} is {item}, and the file says {described}"
    change = entry.quantity_change or 0
    if change < 0 and lot.quantity + change <= 0:
        units = pluralize(lot.quantity, "unit", "units")
        return f"the lot has {units}, and {change} would leave none; write <DELETE>Y</DELETE> to delete it"
    return None


def _is_same_lot_value(name: str, given: Any, known: Any) -> bool:
    if given == known or (not given and not known):
        return True
    if name == "item_no":
        return not given.strip() and not known.strip()
    return isinstance(given, str) and isinstance(known, str) and given == replace_non_xml_characters(known)


def _lot_entry_range_problems(lot: Lot) -> list[tuple[str, str]]:
    limits = {"lot_id": MAX_LOT_ID, "color_id": MAX_COLOR_ID, "bind_id": MAX_LOT_ID}
    problems = [(name, "is out of range") for name, limit in limits.items() if not 0 <= getattr(lot, name) <= limit]
    too_long = [
        n for n in ("item_type", "item_no", "reserved_for") if len(getattr(lot, n) or "") > MAX_IDENTIFIER_LENGTH
    ]
    return problems + [(name, f"must not be longer than {MAX_IDENTIFIER_LENGTH} characters") for name in too_long]
