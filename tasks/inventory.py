"""The commands that record and delete the marketplace's lots."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from models import inventory, members
from models.stored_answers import Answer
from models.unit_of_work import unit_of_work
from policies.lots import (
    COMPLETENESS,
    CONDITIONS,
    MAX_TEXT_LENGTH,
    STOCKROOMS,
    Lot,
    check_lot_deletable,
    check_recorded_lot,
    find_lot_problems,
    find_lot_tier_gaps,
    lot_from_snapshot,
)
from policies.verdicts import Refused
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
from tasks.declarations import command_task

LotCount = Annotated[int, Field(strict=True, ge=0, le=MAX_INT32)]
LotText = Annotated[Text, StringConstraints(max_length=MAX_TEXT_LENGTH)]


class Item(StrictModel):
    no: Annotated[Text, StringConstraints(max_length=64)]
    type: Annotated[Text, StringConstraints(min_length=1, max_length=64)]


class LotFacts(StrictModel):
    lot_id: LotId
    seller_id: MemberId
    item: Item
    color_id: LotCount
    quantity: LotCount
    new_or_used: Literal[CONDITIONS]  # type: ignore[valid-type]
    unit_price: UnitPrice
    completeness: Literal[COMPLETENESS] | None = None  # type: ignore[valid-type]
    bind_id: BindId = 0
    description: LotText = ""
    remarks: LotText = ""
    bulk: StrictInt = 1
    is_retain: StrictBool = False
    is_stock_room: StrictBool = False
    stock_room_id: Literal[STOCKROOMS] | None = None  # type: ignore[valid-type]
    my_cost: UnitPrice | None = None
    my_weight: UnitPrice | None = None
    sale_rate: StrictInt = 0
    tier_quantity1: LotCount | None = None
    tier_quantity2: LotCount | None = None
    tier_quantity3: LotCount | None = None
    tier_price1: UnitPrice | None = None
    tier_price2: UnitPrice | None = None
    tier_price3: UnitPrice | None = None
    reserved_for: MemberId | None = None


class RecordLot(Command):
    task: ClassVar[str] = "inventory.record_lot"
    lot: LotFacts


@command_task(
    RecordLot,
    example={
        "lot": {
            "lot_id": 501,
            "seller_id": "s-881",
            "item": {"no": "3001", "type": "PART"},
            "color_id": 5,
            "quantity": 100,
            "new_or_used": "N",
            "unit_price": "0.1000",
        }
    },
)
def record_lot(commands: list[RecordLot]) -> list[Answer]:
    """Insert a lot, or replace a known one; a difference in its quantity is posted as an adjustment."""
    with unit_of_work(commands) as work:
        given = [command.lot.model_dump() for command in work.pending]
        lots = [lot_from_snapshot(values) for values in given]
        sellers = members.load_members(work.conn, {lot.seller_id for lot in lots}, lock=members.FOR_SHARE)
        known = inventory.lock_recorded_lots(work.conn, [lot.lot_id for lot in lots], [lot.key for lot in lots])
        recorded: list[tuple[Lot | None, Lot]] = []
        for command, values, lot in zip(work.pending, given, lots, strict=True):
            if problems := sorted([*find_lot_problems(lot), *find_lot_tier_gaps(values)]):
                errors = [(f"lot.{path}", message) for path, message in problems]
                work.answer(command, Answer.invalid(command.request_id, errors))
                continue
            before = known.get(lot.lot_id)
            after = check_recorded_lot(lot, before, seller_known=lot.seller_id in sellers)
            if not isinstance(after, Lot):
                work.answer(command, after)
                continue
            recorded.append((before, after))
            known[lot.lot_id] = after
            effects = {
                "lot_id": lot.lot_id,
                "quantity": lot.quantity,
                "recorded": before is None,
                "adjusted": lot.quantity - before.quantity if before else 0,
            }
            work.answer(command, Answer.done(command, effects))
        inventory.upsert_lots(work.conn, recorded, work.now)
    return work.answers


class DeleteLot(Command):
    task: ClassVar[str] = "inventory.delete_lot"
    lot_id: LotId
    seller_id: MemberId


@command_task(DeleteLot, example={"lot_id": 501, "seller_id": "s-881"})
def delete_lot(commands: list[DeleteLot]) -> list[Answer]:
    """Delete a seller's lot; units on hand are posted as an adjustment, and a later return makes a new lot."""
    with unit_of_work(commands) as work:
        known = inventory.lock_recorded_lots(work.conn, [c.lot_id for c in work.pending])
        deleted: list[Lot] = []
        for command in work.pending:
            lot = check_lot_deletable(known.get(command.lot_id), command.lot_id, command.seller_id)
            if isinstance(lot, Refused):
                work.answer(command, lot)
                continue
            del known[command.lot_id]
            deleted.append(lot)
            work.answer(command, Answer.done(command, {"lot_id": command.lot_id, "adjusted": -lot.quantity}))
        inventory.delete_lots(work.conn, deleted, work.now)
    return work.answers
