"""Where does each unit of a cancelled order go?  The plan of a return, decided before anything is written.

A plan is a pure function of the lines, the lots that could take them, and the seller's choices (rules.md 5).  The lots
of a set of orders stand on one `Shelf`: each order sees them as the plans before it left them, so that two orders which
need a new lot of one item make one (R75, C27).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from policies.consolidation import ONE_STEP, Choices, LineEdit, merge
from policies.lots import (
    MAX_UNITS,
    Lot,
    LotKey,
    LotSnapshot,
    apply_fields,
    find_lot_problems,
    find_tier_gaps,
)


class Note(StrEnum):
    """What the seller should know of a returned line (contract 2.3)."""

    RETURNED_TO_STOCKROOM = "RETURNED_TO_STOCKROOM"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    DELETED_IN_DRAFT = "DELETED_IN_DRAFT"


class QuantityOverflow(Exception):
    """The lot cannot hold that many units: nothing of this cancellation may be written, and staff must look (C25)."""


@dataclass(frozen=True, slots=True)
class ReturningLine:
    """Units of one order line that come back; `item` is the lot as it was when they were sold."""

    line_no: int
    units: int
    item: Lot | LotSnapshot


@dataclass(frozen=True, slots=True)
class ReturnedLine:
    """Where the units of one line went.  A negative `lot_id` is a new lot that has no number yet."""

    line_no: int
    returned: int
    lot_id: int | None = None
    note: Note | None = None

    def effects(self) -> dict[str, Any]:
        """The line as the caller of `orders.cancel` is told."""
        return {"line_no": self.line_no, "returned": self.returned, "lot_id": self.lot_id, "note": self.note}


@dataclass(frozen=True, slots=True)
class ReturnPlan:
    """What one order, or one approved removal request of it, puts back.

    `lots`: every lot that changes, as it is afterwards, by id (negative: new).  `before`: those of them that exist, as
    they were.  `problems`: (line_no, field, sentence) for values that the seller chose and that no lot may have.
    """

    order_id: int
    lines: tuple[ReturnedLine, ...]
    lots: Mapping[int, Lot] = field(default_factory=dict)
    before: Mapping[int, Lot] = field(default_factory=dict)
    removal_id: int | None = None
    problems: tuple[tuple[int, str, str], ...] = ()
    apart: frozenset[int] = frozenset()

    def effects(self) -> list[dict[str, Any]]:
        """`effects.lines` of the answer."""
        return [line.effects() for line in self.lines]

    @property
    def returned(self) -> ReturnTotals:
        """What comes back by it."""
        back = [line.returned for line in self.lines if line.returned]
        return ReturnTotals(self.effects(), len(back), sum(back))


@dataclass(frozen=True, slots=True)
class ReturnTotals:
    """What came back of one order: `effects.lines` of the answer, how many lines had something to return, how many units."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    lines_returned: int = 0
    units_returned: int = 0


class StockView:
    """The lots that the orders of one set could return to, as they stand in the course of the set."""

    def __init__(self, lots: Iterable[Lot] = ()) -> None:
        self.lots: dict[int, Lot] = {}
        self._by_key: dict[LotKey, list[int]] = {}
        self._apart: set[int] = set()
        self._new = 0
        for lot in lots:
            self._put(lot)

    def take(self, plan: ReturnPlan) -> None:
        """The plan is going to be carried out: whoever plans next sees the lots as it leaves them."""
        for lot in plan.lots.values():
            self._put(lot)
        self._apart |= plan.apart
        self._new = min([self._new, *plan.lots])

    def new_id(self, already: int) -> int:
        """A provisional number for a new lot; `already` = how many this plan has made."""
        return self._new - already - 1

    def numbers(self, key: LotKey) -> Iterable[int]:
        """The lots of this item, apart from those that wait for a review."""
        return (lot_id for lot_id in self._by_key.get(key, ()) if lot_id not in self._apart)

    def _put(self, lot: Lot) -> None:
        # A lot never becomes another item here, so that its key needs to be looked at once.
        if lot.lot_id not in self.lots:
            self._by_key.setdefault(lot.key, []).append(lot.lot_id)
        self.lots[lot.lot_id] = lot


def may_be_target(lot: Lot) -> bool:
    """Superlot parts, reserved lots and items outside the catalogue never take anything in (R81)."""
    return lot.bind_id == 0 and lot.reserved_for is None and lot.in_catalogue


def choose_target(source: int, candidates: Sequence[Lot]) -> Lot | None:
    """The lot it was sold from, then one for sale, then the lowest number; new lots come last (R76)."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return min(candidates, key=lambda lot: (lot.lot_id != source, lot.is_stock_room, lot.lot_id < 0, abs(lot.lot_id)))


def plan_return(
    order_id: int,
    lines: Sequence[ReturningLine],
    shelf: StockView,
    *,
    choices: Choices = ONE_STEP,
    release_auto_stockroom: bool = False,
    removal_id: int | None = None,
) -> ReturnPlan:
    """Decide where every unit goes; the shelf itself is left as it is.  Raises `TooManyUnits` (C25).

    `release_auto_stockroom` is the term RELEASE_AUTO_STOCKROOM: a lot that only selling out put away goes back on sale.
    """
    planning = _Planning(shelf, choices, release_auto_stockroom)
    placed = tuple(planning.place(line) for line in sorted(lines, key=lambda line: line.line_no))
    return ReturnPlan(
        order_id,
        placed,
        lots=planning.changed,
        before={lot_id: shelf.lots[lot_id] for lot_id in planning.changed if lot_id in shelf.lots},
        removal_id=removal_id,
        problems=tuple(planning.problems),
        apart=frozenset(planning.apart),
    )


def plan_nothing(order_id: int, line_numbers: Iterable[int]) -> ReturnPlan:
    """The plan of a cancellation that puts nothing back: NRS, NSS, terminated seller (R64, R65)."""
    return ReturnPlan(order_id, tuple(ReturnedLine(number, 0) for number in sorted(line_numbers)))


class _Planning:
    """One plan in the making: what it changed so far lies over the shelf."""

    def __init__(self, shelf: StockView, choices: Choices, release: bool) -> None:
        self._shelf = shelf
        self._choices = choices
        self._release = release
        self._made = 0
        self._new_of_key: dict[LotKey, list[int]] = {}
        self.changed: dict[int, Lot] = {}
        self.apart: set[int] = set()
        self.problems: list[tuple[int, str, str]] = []

    def place(self, line: ReturningLine) -> ReturnedLine:
        edit = self._choices.edits.get(line.line_no, LineEdit())
        if edit.delete:
            return ReturnedLine(line.line_no, 0, note=Note.DELETED_IN_DRAFT)  # R73
        units = line.units if edit.quantity is None else min(edit.quantity, line.units)  # no stock out of thin air
        if units <= 0:
            return ReturnedLine(line.line_no, 0)
        target = self._target(line.item)
        # Without choices only the key of what comes back matters to the lot that takes it (R66).
        item = apply_fields(line.item.whole, edit.fields) if target is None or self._choices.values else target
        after, note = self._new_lot(item, units, edit) if target is None else self._join(target, item, units)
        if after.quantity > MAX_UNITS:
            raise QuantityOverflow(f"lot {after.lot_id} cannot hold {after.quantity} units")
        if self._choices is not ONE_STEP:
            wrong = [*find_tier_gaps({**line.item.whole.snapshot(), **edit.fields}), *find_lot_problems(after)]
            self.problems.extend((line.line_no, name, sentence) for name, sentence in wrong)
        if target is None and after.lot_id not in self.apart:
            self._new_of_key.setdefault(after.key, []).append(after.lot_id)
        self.changed[after.lot_id] = after
        return ReturnedLine(line.line_no, units, after.lot_id, note)

    def _target(self, item: Lot | LotSnapshot) -> Lot | None:
        if not self._choices.consolidate or needs_own_lot(item):
            return None
        key, shelf, changed = item.key, self._shelf.lots, self.changed
        numbers = [*self._shelf.numbers(key), *self._new_of_key.get(key, ())]
        lots = [changed[i] if i in changed else shelf[i] for i in numbers]
        return choose_target(item.lot_id, [lot for lot in lots if may_be_target(lot)])

    def _join(self, target: Lot, item: Lot, units: int) -> tuple[Lot, Note | None]:
        after = merge(target, item, units, self._choices.values)
        if self._release and after.is_stock_room and after.auto_stockroom:
            after = replace(after, is_stock_room=False, stock_room_id=None, auto_stockroom=False)
        return after, Note.RETURNED_TO_STOCKROOM if after.is_stock_room else None  # R77

    def _new_lot(self, item: Lot, units: int, edit: LineEdit) -> tuple[Lot, Note | None]:
        """The line's own values (R67).  A bond or a reservation ended with the sale, so the new lot is free of both."""
        lot_id = self._shelf.new_id(self._made)
        self._made += 1
        if needs_own_lot(item):
            self.apart.add(lot_id)
        was_reserved = item.reserved_for is not None and "reserved_for" not in edit.fields
        lot = replace(
            item,
            lot_id=lot_id,
            quantity=units,
            bind_id=0,
            reserved_for=None if was_reserved else item.reserved_for,
            auto_stockroom=False,
        )
        if lot_id in self.apart or was_reserved:
            return lot, Note.NEEDS_REVIEW
        return lot, Note.RETURNED_TO_STOCKROOM if lot.is_stock_room else None


def needs_own_lot(item: Lot | LotSnapshot) -> bool:
    """Parts of a superlot and items outside the catalogue get a lot of their own, to be reviewed (rules.md 5.6)."""
    return item.bind_id != 0 or not item.in_catalogue
