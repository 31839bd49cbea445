"""How does stock come to be known?  The marketplace says what each lot is, as often as it likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from celery import shared_task
from pydantic import Field, StringConstraints

from models import inventory, members
from models.requests import Answer, done, invalid
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.lots import MAX_TEXT_LENGTH, Lot, check_recorded_lot, find_lot_problems, find_tier_gaps, parse_tiers
from policies.verdicts import Invalid, Refused
from tasks.command import (
    MAX_INT32,
    BindId,
    Command,
    LotId,
    MemberId,
    StrictBool,
    StrictInt,
    StrictModel,
    Text,
    UnitPrice,
)

Units = Annotated[int, Field(strict=True, ge=0, le=MAX_INT32)]
LotText = Annotated[Text, StringConstraints(max_length=MAX_TEXT_LENGTH)]
Named = Annotated[Text, StringConstraints(max_length=64)]


class Item(StrictModel):
    """The catalogue item of a lot; an empty number is a custom item, which is the same as nothing else."""

    no: Named
    type: Annotated[Text, StringConstraints(min_length=1, max_length=64)]


class LotFacts(StrictModel):
    """A lot in the shape of contract 3.2."""

    lot_id: LotId
    seller_id: MemberId
    item: Item
    color_id: Units
    quantity: Units
    new_or_used: Literal["N", "U"]
    unit_price: UnitPrice
    completeness: Literal["C", "B", "S"] | None = None
    bind_id: BindId = 0
    description: LotText = ""
    remarks: LotText = ""
    bulk: StrictInt = 1
    is_retain: StrictBool = False
    is_stock_room: StrictBool = False
    stock_room_id: Literal["A", "B", "C"] | None = None
    my_cost: UnitPrice | None = None
    my_weight: UnitPrice | None = None
    sale_rate: StrictInt = 0
    tier_quantity1: Units | None = None
    tier_quantity2: Units | None = None
    tier_quantity3: Units | None = None
    tier_price1: UnitPrice | None = None
    tier_price2: UnitPrice | None = None
    tier_price3: UnitPrice | None = None
    reserved_for: MemberId | None = None

    def lot(self) -> Lot:
        """The same as the rules know it."""
        given = self.model_dump(exclude={"item"})
        plain = {name: value for name, value in given.items() if not name.startswith("tier_")}
        return Lot(**plain, item_type=self.item.type, item_no=self.item.no, tiers=parse_tiers(given))

    def wrong(self) -> list[tuple[str, str]]:
        """Which fields contradict one another, with a sentence for each."""
        return sorted([*find_lot_problems(self.lot()), *find_tier_gaps(self.model_dump())])


class RecordLot(Command):
    """Arguments of `inventory.record_lot`."""

    task: ClassVar[str] = "inventory.record_lot"
    lot: LotFacts


@shared_task(name=RecordLot.task)
def record_lot(commands: list[RecordLot]) -> list[Answer]:
    """The marketplace says what a lot is; said again, it replaces what was known, and differing units are booked."""
    with unit_of_work(commands) as work:
        recorder = _Recorder(work, [c.lot.lot() for c in work.pending])
        for command in work.pending:
            if wrong := command.lot.wrong():
                work.answer(command, invalid(command.request_id, [(f"lot.{path}", said) for path, said in wrong]))
                continue
            told = recorder.take(command.lot.lot())
            work.answer(command, told if isinstance(told, Refused | Invalid) else done(command, told))
        recorder.write()
    return work.answers


def record_imported_lots(lots: Sequence[Lot]) -> list[dict[str, Any] | Refused | Invalid]:
    """Record lots of a seller's own file, in one transaction: all of them, or none when one is refused.

    A lot numbered 0 gets a number of ours.
    """
    work: UnitOfWork[RecordLot]
    with unit_of_work() as work:
        numbers = iter(inventory.allocate_lot_ids(work.conn, sum(not lot.lot_id for lot in lots)))
        numbered = [lot if lot.lot_id else replace(lot, lot_id=next(numbers)) for lot in lots]
        recorder = _Recorder(work, numbered)
        answers = [recorder.take(lot, may_be_own=True) for lot in numbered]
        if all(isinstance(answer, dict) for answer in answers):
            recorder.write()
    return answers


def check_imported_lots(lots: Sequence[Lot]) -> list[Refused | Invalid]:
    """What a file asks for and cannot get, asked before anything of it is written: another seller's lots."""
    work: UnitOfWork[RecordLot]
    with unit_of_work() as work:
        recorder = _Recorder(work, lots)
        answers = [recorder.take(lot, may_be_own=True) for lot in lots if lot.lot_id]
    return [answer for answer in answers if not isinstance(answer, dict)]


class _Recorder:
    """The lots of one set, each told one seeing those told before it."""

    def __init__(self, work: UnitOfWork[Any], lots: Sequence[Lot]) -> None:
        self._work = work
        self._sellers = members.load_facts(work.conn, {lot.seller_id for lot in lots}, lock=members.FOR_SHARE)
        self._known = inventory.lock_recorded_lots(work.conn, lots) if lots else {}
        self._told: list[tuple[Lot | None, Lot]] = []

    def take(self, lot: Lot, *, may_be_own: bool = False) -> dict[str, Any] | Refused | Invalid:
        known = self._known.get(lot.lot_id)
        verdict = check_recorded_lot(lot, known, seller_known=lot.seller_id in self._sellers, may_be_own=may_be_own)
        if not isinstance(verdict, Lot):
            return verdict
        self._told.append((known, verdict))
        self._known[lot.lot_id] = verdict
        return {
            "lot_id": lot.lot_id,
            "quantity": lot.quantity,
            "recorded": known is None,
            "adjusted": lot.quantity - known.quantity if known else 0,
        }

    def write(self) -> None:
        inventory.upsert_lots(self._work.conn, self._told, self._work.now)
