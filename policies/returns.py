"""The plan that decides which lot each unit of a cancelled order returns to.

A plan is a pure function of the lines, the candidate lots and the seller's choices.  The orders of a batch share one
`StockView`: each order sees the lots as the plans before it left them, so that two orders that need a new lot of one
item create one (R75).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from policies.consolidation import ONE_STEP, Choices, LineEdit, consolidate_values
from policies.lots import MAX_UNITS, Lot, LotKey, LotSnapshot, apply_lot_fields, find_lot_problems, find_lot_tier_gaps


class ReturnNote(StrEnum):
    RETURNED_TO_STOCKROOM = "RETURNED_TO_STOCKROOM"
    NEEDS_REVIEW = "NEEDS_REVIEW"
    DELETED_IN_DRAFT = "DELETED_IN_DRAFT"


class QuantityOverflow(Exception):
    """The lot cannot hold that many units: nothing of the cancellation is written, and staff must act."""


@dataclass(frozen=True, slots=True)
class ReturningLine:
    line_no: int
    units: int
    item: Lot | LotSnapshot


@dataclass(frozen=True, slots=True)
class ReturnedLine:
    """Where the units of one line go.  A negative `lot_id` is a new lot that has no id yet."""

    line_no: int
    returned: int
    lot_id: int | None = None
    note: ReturnNote | None = None

    def effects(self) -> dict[str, Any]:
        return {"line_no": self.line_no, "returned": self.returned, "lot_id": self.lot_id, "note": self.note}


@dataclass(frozen=True, slots=True)
class ReturnPlan:
    """What one order, or one approved removal request, returns.

    `lots`: every changed lot as it is afterwards, by id (negative: new).  `before`: the existing ones as they were.
    `problems`: (line_no, field, message) for chosen values that a lot must not have.  `lots_to_review`: new
    lots that need a review and take nothing else.
    """

    order_id: int
    lines: tuple[ReturnedLine, ...]
    lots: Mapping[int, Lot] = field(default_factory=dict)
    before: Mapping[int, Lot] = field(default_factory=dict)
    removal_id: int | None = None
    problems: tuple[tuple[int, str, str], ...] = ()
    lots_to_review: frozenset[int] = frozenset()

    def with_lot_ids(self, ids: Mapping[int, int]) -> ReturnPlan:
        """Return the plan with these ids of new lots in place of the provisional ones."""
        if not ids:
            return self
        lots, before = (
            {ids.get(i, i): replace(lot, lot_id=ids.get(i, i)) for i, lot in lots_by_id.items()}
            for lots_by_id in (self.lots, self.before)
        )
        return replace(
            self,
            lines=tuple(
                replace(x, lot_id=None if x.lot_id is None else ids.get(x.lot_id, x.lot_id)) for x in self.lines
            ),
            lots=lots,
            before=before,
            lots_to_review=frozenset(ids.get(i, i) for i in self.lots_to_review),
        )

    @property
    def returned(self) -> ReturnTotals:
        back = [line.returned for line in self.lines if line.returned]
        return ReturnTotals([line.effects() for line in self.lines], len(back), sum(back))


@dataclass(frozen=True, slots=True)
class ReturnTotals:
    lines: list[dict[str, Any]] = field(default_factory=list)
    lines_returned: int = 0
    units_returned: int = 0


def provisional_lot_ids(plans: Iterable[ReturnPlan]) -> list[int]:
    return sorted({lot_id for plan in plans for lot_id in plan.lots if lot_id < 0}, reverse=True)


class StockView:
    def __init__(self, lots: Iterable[Lot] = ()) -> None:
        self.lots: dict[int, Lot] = {}
        self._by_key: dict[LotKey, list[int]] = {}
        self._lots_to_review: set[int] = set()
        self.last_new_id = 0
        """The provisional id of the newest new lot."""
        for lot in lots:
            self._add(lot)

    def apply(self, plan: ReturnPlan) -> None:
        for lot in plan.lots.values():
            self._add(lot)
        self._lots_to_review |= plan.lots_to_review
        self.last_new_id = min([self.last_new_id, *plan.lots])

    def lots_of(self, key: LotKey) -> list[Lot]:
        return [self.lots[lot_id] for lot_id in self._by_key.get(key, ()) if lot_id not in self._lots_to_review]

    def _add(self, lot: Lot) -> None:
        # A lot keeps its key here, so that it is indexed once.
        if lot.lot_id not in self.lots:
            self._by_key.setdefault(lot.key, []).append(lot.lot_id)
        self.lots[lot.lot_id] = lot


def may_be_return_target(lot: Lot) -> bool:
    """Whether items can return to this lot: no superlot part, reserved lot or custom item (R81)."""
    return lot.bind_id == 0 and lot.reserved_for is None and lot.has_catalogue_item


def choose_target_lot(source: int, candidates: Sequence[Lot]) -> Lot | None:
    """Choose the lot it was sold from, then one for sale, then the lowest id; new lots come last (R76)."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return min(candidates, key=lambda lot: (lot.lot_id != source, lot.is_stock_room, lot.lot_id < 0, abs(lot.lot_id)))


def plan_return(
    order_id: int,
    lines: Sequence[ReturningLine],
    stock: StockView,
    *,
    choices: Choices = ONE_STEP,
    release_auto_stockroom: bool = False,
    removal_id: int | None = None,
) -> ReturnPlan:
    """Plan where every unit returns to, without changing `stock`.  Raises `QuantityOverflow`.

    `release_auto_stockroom` (the term of that name): a lot that selling out moved to a stockroom goes back on sale.
    """
    planner = _ReturnPlanner(stock, choices, release_auto_stockroom)
    returned_lines = tuple(planner.plan_line(line) for line in sorted(lines, key=lambda line: line.line_no))
    return ReturnPlan(
        order_id,
        returned_lines,
        lots=planner.changed,
        before={lot_id: stock.lots[lot_id] for lot_id in planner.changed if lot_id in stock.lots},
        removal_id=removal_id,
        problems=tuple(planner.problems),
        lots_to_review=frozenset(planner.lots_to_review),
    )


def plan_nothing(order_id: int, line_numbers: Iterable[int]) -> ReturnPlan:
    return ReturnPlan(order_id, tuple(ReturnedLine(number, 0) for number in sorted(line_numbers)))


class _ReturnPlanner:
    def __init__(self, stock: StockView, choices: Choices, release: bool) -> None:
        self._stock = stock
        self._choices = choices
        self._release = release
        self._last_new_id = stock.last_new_id
        self._new_of_key: dict[LotKey, list[int]] = {}
        self.changed: dict[int, Lot] = {}
        self.lots_to_review: set[int] = set()
        self.problems: list[tuple[int, str, str]] = []

    def plan_line(self, line: ReturningLine) -> ReturnedLine:
        edit = self._choices.edits.get(line.line_no, LineEdit())
        if edit.delete:
            return ReturnedLine(line.line_no, 0, note=ReturnNote.DELETED_IN_DRAFT)  # R73
        units = line.units if edit.quantity is None else min(edit.quantity, line.units)  # never more than were sold
        if units <= 0:
            return ReturnedLine(line.line_no, 0)
        target = self._target(line.item)
        # Without choices only the key of what comes back matters to the lot that takes it (R66).
        item = apply_lot_fields(line.item.full_lot, edit.fields) if target is None or self._choices.values else target
        after, note = self._new_lot(item, units, edit) if target is None else self._join(target, item, units)
        if after.quantity > MAX_UNITS:
            raise QuantityOverflow(f"lot {after.lot_id} cannot hold {after.quantity} units")
        if self._choices is not ONE_STEP:
            found_problems = [
                *find_lot_tier_gaps({**line.item.full_lot.snapshot(), **edit.fields}),
                *find_lot_problems(after),
            ]
            self.problems.extend((line.line_no, name, sentence) for name, sentence in found_problems)
        if target is None and after.lot_id not in self.lots_to_review:
            self._new_of_key.setdefault(after.key, []).append(after.lot_id)
        self.changed[after.lot_id] = after
        return ReturnedLine(line.line_no, units, after.lot_id, note)

    def _target(self, item: Lot | LotSnapshot) -> Lot | None:
        if not self._choices.consolidate or needs_own_lot(item):
            return None
        lots = [self.changed.get(lot.lot_id, lot) for lot in self._stock.lots_of(item.key)]
        lots += [self.changed[lot_id] for lot_id in self._new_of_key.get(item.key, ())]
        return choose_target_lot(item.lot_id, [lot for lot in lots if may_be_return_target(lot)])

    def _join(self, target: Lot, item: Lot, units: int) -> tuple[Lot, ReturnNote | None]:
        after = consolidate_values(target, item, units, self._choices.values)
        if self._release and after.is_stock_room and after.auto_stockroom:
            after = replace(after, is_stock_room=False, stock_room_id=None, auto_stockroom=False)
        return after, ReturnNote.RETURNED_TO_STOCKROOM if after.is_stock_room else None  # R77

    def _new_lot(self, item: Lot, units: int, edit: LineEdit) -> tuple[Lot, ReturnNote | None]:
        self._last_new_id = lot_id = self._last_new_id - 1
        if needs_own_lot(item):
            self.lots_to_review.add(lot_id)
        was_reserved = item.reserved_for is not None and "reserved_for" not in edit.fields
        lot = replace(
            item,
            lot_id=lot_id,
            quantity=units,
            bind_id=0,
            reserved_for=None if was_reserved else item.reserved_for,
            auto_stockroom=False,
        )
        if lot_id in self.lots_to_review or was_reserved:
            return lot, ReturnNote.NEEDS_REVIEW
        return lot, ReturnNote.RETURNED_TO_STOCKROOM if lot.is_stock_room else None


def needs_own_lot(item: Lot | LotSnapshot) -> bool:
    return item.bind_id != 0 or not item.has_catalogue_item
