"""Stock of the reference model: what leaves with an order and where units return to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal


@dataclass
class StockLot:
    """One lot.  `item` identifies the same thing; `room` is the stockroom, None while the lot is for sale."""

    lot_id: int
    seller: str
    item: tuple[str, int, str]
    quantity: int
    price: Decimal
    bulk: int = 1
    sale: int = 0
    tier: tuple[int, Decimal] | None = None
    retain: bool = False
    room: str | None = None
    put_away_by_sale: bool = False
    reserved_for: str | None = None
    bind: int = 0

    def price_of_one(self, units: int) -> Decimal:
        """Tier price less the sale, rounded half up to four decimals."""
        price = self.tier[1] if self.tier and units >= self.tier[0] else self.price
        return (price * (100 - self.sale) / 100).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP)

    def accepts(self, sold: StockLot) -> bool:
        """Same item and seller, and not a superlot part, reserved, or without a number (R68, R81)."""
        same_item = (self.seller, self.item) == (sold.seller, sold.item)
        return same_item and self.bind == 0 and self.reserved_for is None and self.item[0] != ""


@dataclass
class Stock:
    """All lots of all sellers, by id. New lots have ids from -1 down until their real id is known."""

    lots: dict[int, StockLot] = field(default_factory=dict)
    made: Iterator[int] = field(default_factory=lambda: iter(range(-1, -(10**9), -1)))
    release: bool = False
    apart: set[int] = field(default_factory=set)
    """Lots that the return under way made for a superlot part or a custom item: nothing else joins them."""

    def begin(self, *, release: bool) -> None:
        self.apart.clear()
        self.release = release

    def sell(self, lot_id: int, units: int) -> StockLot:
        """Remove units and return the previous lot.  A lot that sells out is deleted, or retained in stockroom A."""
        lot = self.lots[lot_id]
        before = replace(lot)
        lot.quantity -= units
        if lot.quantity == 0 and not lot.retain:
            del self.lots[lot_id]
        elif lot.quantity == 0 and lot.room is None:
            lot.room, lot.put_away_by_sale, lot.reserved_for = "A", True, None
        return before

    def return_units(self, sold: StockLot, units: int) -> int | None:
        """Return units and give the lot they are in now (R66, R67, R75, R76)."""
        if units == 0:
            return None
        target = None
        if sold.bind == 0:
            fitting = [lot for lot in self.lots.values() if lot.accepts(sold) and lot.lot_id not in self.apart]
            # The original lot first, then one for sale, then the lowest id; unnumbered lots come last.
            fitting.sort(
                key=lambda x: (x.lot_id != sold.lot_id, x.room is not None, x.lot_id < 0, abs(x.lot_id)),
            )
            target = fitting[0] if fitting else None
        if target is None:
            target = replace(sold, lot_id=next(self.made), quantity=0, bind=0, reserved_for=None)
            target.put_away_by_sale = False
            self.lots[target.lot_id] = target
            if sold.bind or not sold.item[0]:
                self.apart.add(target.lot_id)
        target.quantity += units
        if self.release and target.put_away_by_sale:
            target.room, target.put_away_by_sale = None, False
        return target.lot_id

    def renumber(self, provisional: int, lot_id: int) -> None:
        lot = self.lots.pop(provisional)
        lot.lot_id = lot_id
        self.lots[lot_id] = lot
