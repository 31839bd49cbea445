"""Lots: their fields, their identity, and the values not allowed.

Fields are named as in the marketplace's API.  Prices and costs are in the seller's currency with four decimals, weights
in grams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Any, NamedTuple

from policies.members import member_unknown
from policies.texts import is_identifier
from policies.verdicts import Code, Invalid, Refused

MAX_UNITS = 2**31 - 1
MAX_TEXT_LENGTH = 2000
PRICE_LIMIT = Decimal(10) ** 10
"""Exclusive limit of the database's price columns."""
STOCKROOMS = ("A", "B", "C")
CONDITIONS = ("N", "U")
COMPLETENESS = ("C", "B", "S")
TIER_FIELDS = tuple(f"tier_{part}{number}" for number in (1, 2, 3) for part in ("quantity", "price"))
SOLD_OUT_STOCKROOM = "A"
"""The stockroom of a retained lot that has sold out."""
FIRST_UNWIND_LOT_ID = 9_000_000_000_000
"""Lots that Unwind creates have ids from here; lower ids are the marketplace's."""


class LotKey(NamedTuple):
    seller_id: str
    item_type: str
    item_no: str
    color_id: int
    new_or_used: str
    completeness: str | None


@dataclass(frozen=True, slots=True)
class Lot:
    """One lot.  `tiers`: up to three (from quantity, price).  `auto_stockroom`: selling out put it in its stockroom."""

    lot_id: int
    seller_id: str
    item_type: str
    item_no: str
    color_id: int
    quantity: int
    new_or_used: str
    unit_price: Decimal
    completeness: str | None = None
    bind_id: int = 0
    description: str = ""
    remarks: str = ""
    bulk: int = 1
    is_retain: bool = False
    is_stock_room: bool = False
    stock_room_id: str | None = None
    my_cost: Decimal | None = None
    my_weight: Decimal | None = None
    sale_rate: int = 0
    tiers: tuple[tuple[int, Decimal], ...] = ()
    reserved_for: str | None = None
    auto_stockroom: bool = False

    @property
    def key(self) -> LotKey:
        return LotKey(self.seller_id, self.item_type, self.item_no, self.color_id, self.new_or_used, self.completeness)

    @property
    def has_catalogue_item(self) -> bool:
        return bool(self.item_no.strip())

    @property
    def full_lot(self) -> Lot:
        return self

    @property
    def tier_fields(self) -> dict[str, Any]:
        return dict(zip_longest(TIER_FIELDS, chain.from_iterable(self.tiers)))

    def with_quantity(self, quantity: int) -> Lot:
        # Much faster than `replace`, which matters for batches of hundreds.
        values = list(_LOT_VALUES(self))
        values[_LOT_PLACES["quantity"]] = quantity
        return Lot(*values)

    def snapshot(self) -> dict[str, Any]:
        return {
            "lot_id": self.lot_id,
            "seller_id": self.seller_id,
            "item": {"no": self.item_no, "type": self.item_type},
            "color_id": self.color_id,
            "quantity": self.quantity,
            "new_or_used": self.new_or_used,
            "completeness": self.completeness,
            "unit_price": format_price(self.unit_price),
            "bind_id": self.bind_id,
            "description": self.description,
            "remarks": self.remarks,
            "bulk": self.bulk,
            "is_retain": self.is_retain,
            "is_stock_room": self.is_stock_room,
            "stock_room_id": self.stock_room_id,
            "my_cost": format_price(self.my_cost),
            "my_weight": format_price(self.my_weight),
            "sale_rate": self.sale_rate,
            **{
                name: format_price(value) if isinstance(value, Decimal) else value
                for name, value in self.tier_fields.items()
            },
            "reserved_for": self.reserved_for,
        }


_LOT_PLACES = {field.name: place for place, field in enumerate(fields(Lot))}
_LOT_VALUES: Callable[[Lot], tuple[Any, ...]] = attrgetter(*_LOT_PLACES)
_OPTIONAL_AMOUNTS = ("my_cost", "my_weight")


@dataclass(frozen=True, slots=True)
class LotSnapshot:
    values: Mapping[str, Any]

    @property
    def lot_id(self) -> int:
        number: int = self.values["lot_id"]
        return number

    @property
    def key(self) -> LotKey:
        values, item = self.values, self.values["item"]
        return LotKey(
            values["seller_id"],
            item["type"],
            item["no"],
            values["color_id"],
            values["new_or_used"],
            values.get("completeness"),
        )

    @property
    def bind_id(self) -> int:
        return int(self.values.get("bind_id") or 0)

    @property
    def has_catalogue_item(self) -> bool:
        return bool(self.values["item"]["no"].strip())

    @property
    def full_lot(self) -> Lot:
        return lot_from_snapshot(self.values)


def plain_lot_key(key: LotKey) -> LotKey:
    return key._replace(item_no=key.item_no.strip())


def is_marketplace_number(lot_id: int) -> bool:
    return 0 < lot_id < FIRST_UNWIND_LOT_ID


def lot_from_snapshot(snapshot: Mapping[str, Any]) -> Lot:
    values = {name: value for name, value in snapshot.items() if name in _LOT_PLACES and value is not None}
    values |= {name: Decimal(values[name]) for name in ("unit_price", *_OPTIONAL_AMOUNTS) if name in values}
    values.setdefault("quantity", 0)
    item = snapshot["item"]
    return Lot(**values, item_type=item["type"], item_no=item["no"], tiers=lot_tiers_from_fields(snapshot))


def apply_lot_fields(item: Lot, fields: Mapping[str, Any]) -> Lot:
    if not fields:
        return item
    return replace(lot_from_snapshot(item.snapshot() | dict(fields)), auto_stockroom=item.auto_stockroom)


def lot_tiers_from_fields(fields: Mapping[str, Any]) -> tuple[tuple[int, Decimal], ...]:
    pairs = ((fields.get(f"tier_quantity{n}"), fields.get(f"tier_price{n}")) for n in (1, 2, 3))
    return tuple((quantity, Decimal(price)) for quantity, price in pairs if quantity and price is not None)


def find_lot_tier_gaps(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find incomplete tiers and gaps between tiers, as (field, message).

    The marketplace's API writes 0 and 0.0000 for an absent tier.
    """
    ended = False
    for number in (1, 2, 3):
        quantity, price = fields.get(f"tier_quantity{number}"), fields.get(f"tier_price{number}")
        present = bool(quantity) or bool(price is not None and Decimal(price))
        if present and (not quantity or price is None):
            yield f"tier_quantity{number}", "quantity and price of a tier go together"
        elif present and ended:
            yield f"tier_quantity{number}", "the tier before it is missing"
        ended = ended or not present


def format_price(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.4f}"


def check_recorded_lot(
    lot: Lot, known: Lot | None, *, seller_known: bool, may_be_own: bool = False
) -> Lot | Refused | Invalid:
    """Check a lot that the marketplace records, and return it as it is to be stored.

    `known` is the stored lot with that id.  `may_be_own`: Unwind assigned the id.
    """
    if not seller_known:
        return member_unknown(lot.seller_id)
    if known is None:
        if lot.lot_id >= FIRST_UNWIND_LOT_ID and not may_be_own:
            return Invalid(
                "lot.lot_id", f"numbers from {FIRST_UNWIND_LOT_ID} up belong to lots that were created by a return"
            )
        return lot
    if known.seller_id != lot.seller_id:
        return Refused(Code.NOT_A_PARTY, f"Lot {lot.lot_id} belongs to another seller.")
    stays_in_stockroom = known.auto_stockroom and lot.is_stock_room and lot.stock_room_id == known.stock_room_id
    return replace(lot, auto_stockroom=stays_in_stockroom)


def check_lot_deletable(lot: Lot | None, lot_id: int, seller_id: str) -> Lot | Refused:
    if lot is None:
        return Refused(Code.LOT_UNKNOWN, f"There is no lot {lot_id}.", unblocked_by="the lot being recorded")
    if lot.seller_id != seller_id:
        return Refused(Code.NOT_A_PARTY, f"Lot {lot_id} belongs to another seller.")
    return lot


def find_lot_problems(lot: Lot) -> list[tuple[str, str]]:
    identifiers = {"item.type": lot.item_type, "item.no": lot.item_no.strip(" "), "reserved_for": lot.reserved_for}
    checks = [
        ("quantity", 0 <= lot.quantity <= MAX_UNITS, f"must be between 0 and {MAX_UNITS}"),
        ("unit_price", 0 < lot.unit_price < PRICE_LIMIT, "must be above zero"),
        ("sale_rate", 0 <= lot.sale_rate <= 99, "must be a whole percentage from 0 to 99"),
        ("bulk", 1 <= lot.bulk <= MAX_UNITS, "must be 1 or more"),
        *((name, 0 <= (getattr(lot, name) or 0) < PRICE_LIMIT, "must not be negative") for name in _OPTIONAL_AMOUNTS),
        *((name, False, sentence) for name, sentence in _lot_tier_problems(lot)),
        ("stock_room_id", lot.stock_room_id in (None, *STOCKROOMS), "must be A, B or C"),
        (
            "stock_room_id",
            lot.stock_room_id is None or lot.is_stock_room,
            "names a stockroom, but the lot is not in one",
        ),
        ("reserved_for", lot.reserved_for is None or not lot.is_stock_room, "a lot in a stockroom cannot be reserved"),
        *(
            (name, len(getattr(lot, name)) <= MAX_TEXT_LENGTH, f"must not be longer than {MAX_TEXT_LENGTH} characters")
            for name in ("description", "remarks")
        ),
        *(
            (name, not value or is_identifier(value), "must be one line of visible text without invisible characters")
            for name, value in identifiers.items()
        ),
    ]
    return [(name, sentence) for name, holds, sentence in checks if not holds]


def _lot_tier_problems(lot: Lot) -> Iterator[tuple[str, str]]:
    quantity, price = 0, lot.unit_price
    for number, (tier_quantity, tier_price) in enumerate(lot.tiers, start=1):
        if tier_quantity <= quantity or tier_quantity > MAX_UNITS:
            yield f"tier_quantity{number}", "must be more than the tier before"
        if tier_price <= 0:
            yield f"tier_price{number}", "must be above zero"
        elif tier_price >= price:
            below = "the unit price" if number == 1 else "the price of the tier before"
            yield f"tier_price{number}", f"must be below {below}"
        quantity, price = tier_quantity, tier_price
