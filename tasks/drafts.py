"""Commands about drafts of returns, steps 1 to 3: open, edit, verify. Step 4 is `orders.cancel` with the draft."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, StringConstraints, model_serializer

from models import drafts, inventory, orders, returns
from models.cases import CaseSet, lock_case_set
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import drafts as policy
from policies.cases import Case
from policies.consolidation import Choice
from policies.drafts import Draft
from policies.lots import STOCKROOMS, format_price
from policies.preconditions import effective_time
from policies.purchases import MAX_LINES
from policies.returns import ReturnPlan, plan_return
from policies.verdicts import Granted, Invalid, Refused
from tasks.cases import find_command_case, lock_command_cases
from tasks.command import (
    MAX_INT32,
    ActorCommand,
    DraftId,
    LineNo,
    MemberId,
    OrderCommand,
    StrictBool,
    StrictModel,
    Text,
    UnitPrice,
)
from tasks.declarations import SELLER, DeclaredOption, command_task

OldOrNew = Literal["old", "new"]
TextChoice = Literal["old", "new", "concatenate"]
CostChoice = Literal["old", "new", "average"]
Int32 = Annotated[int, Field(strict=True, ge=-MAX_INT32, le=MAX_INT32)]
DraftLotText = Annotated[Text, StringConstraints(max_length=4000)]


class ValueChoices(StrictModel):
    """Step 1: which value each group of fields takes when items are merged into a lot; by default the lot's (`old`)."""

    price: OldOrNew = "old"
    sale: OldOrNew = "old"
    bulk: OldOrNew = "old"
    description: TextChoice = "old"
    remarks: TextChoice = "old"
    cost: CostChoice = "old"
    weight: OldOrNew = "old"
    retain: OldOrNew = "old"
    stockroom: OldOrNew = "old"
    reserved: OldOrNew = "old"


class EditedFields(StrictModel):
    """Step 2: other values for a returning line; fields that are not set keep theirs.

    Only types are checked here; step 3 validates the values.
    """

    unit_price: UnitPrice = Decimal(1)
    tier_quantity1: Int32 | None = None
    tier_quantity2: Int32 | None = None
    tier_quantity3: Int32 | None = None
    tier_price1: UnitPrice | None = None
    tier_price2: UnitPrice | None = None
    tier_price3: UnitPrice | None = None
    sale_rate: Int32 = 0
    bulk: Int32 = 1
    description: DraftLotText = ""
    remarks: DraftLotText = ""
    my_cost: UnitPrice | None = None
    my_weight: UnitPrice | None = None
    is_retain: StrictBool = False
    is_stock_room: StrictBool = False
    stock_room_id: Literal[STOCKROOMS] | None = None  # type: ignore[valid-type]
    reserved_for: MemberId | None = None

    @model_serializer
    def explicit_fields(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        return {name: format_price(value) if isinstance(value, Decimal) else value for name, value in values.items()}


class EditedLine(StrictModel):
    line_no: LineNo
    delete: StrictBool | None = None
    quantity: Annotated[int, Field(strict=True, ge=0, le=MAX_INT32)] | None = None
    fields: EditedFields | None = None

    def to_edit(self) -> tuple[int, dict[str, Any]]:
        return self.line_no, self.model_dump(exclude={"line_no"}, exclude_none=True)


class OpenDraft(OrderCommand):
    task: ClassVar[str] = "drafts.open"
    consolidate: StrictBool
    values: ValueChoices


class DraftCommand(ActorCommand):
    draft_id: DraftId


DraftCommandT = TypeVar("DraftCommandT", bound=DraftCommand)


class EditDraft(DraftCommand):
    task: ClassVar[str] = "drafts.edit"
    lines: Annotated[tuple[EditedLine, ...], Field(min_length=1, max_length=MAX_LINES)]


class VerifyDraft(DraftCommand):
    task: ClassVar[str] = "drafts.verify"


@command_task(
    OpenDraft,
    example=SELLER | {"consolidate": True, "values": {"price": "old", "remarks": "concatenate", "cost": "average"}},
    option=DeclaredOption(
        "prepare the return of items",
        lambda c, o, now: policy.check_may_open_draft(o.case, c.actor, now) or Granted(o.case),
    ),
)
def open_draft(commands: list[OpenDraft]) -> list[Answer]:
    """Open a draft (step 1): choose how returning items are merged into existing lots."""
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work)
        counts = drafts.count_drafts_by_order(work.conn, [c.order_id for c in work.pending])
        opened: list[Draft] = []
        for command in work.pending:
            draft = _open_draft(work, cases, command, counts.get(command.order_id, 0) + 1)
            if isinstance(draft, Draft):
                counts[command.order_id] = counts.get(command.order_id, 0) + 1
                opened.append(draft)
                work.answer(command, Answer.done(command, policy.draft_effects(draft)))
            else:
                work.answer(command, draft)
        drafts.insert_drafts(work.conn, opened)
    return work.answers


@command_task(
    EditDraft,
    example={
        "draft_id": "d-1",
        "member_id": "s-881",
        "lines": [{"line_no": 1, "quantity": 8}, {"line_no": 2, "delete": True}],
    },
)
def edit_draft(commands: list[EditDraft]) -> list[Answer]:
    """Edit the lines of a draft (step 2): leave lines out, return fewer units, set other values."""

    def edit(command: EditDraft, context: _DraftCommandContext) -> _ChangedDraft | Invalid:
        edits = [line.to_edit() for line in command.lines]
        changed = policy.apply_draft_edits(context.draft, edits, context.remaining)
        return changed if isinstance(changed, Invalid) else (changed, policy.draft_effects(changed))

    return _change_drafts(commands, edit)


@command_task(VerifyDraft, example={"draft_id": "d-1", "member_id": "s-881"})
def verify_draft(commands: list[VerifyDraft]) -> list[Answer]:
    """Verify a draft (step 3): return the lot that each line goes to and its new values, or the problems."""

    def verify(_command: VerifyDraft, context: _DraftCommandContext) -> _ChangedDraft:
        plan = context.plan()
        changed = policy.mark_draft_verified(context.draft, plan, context.effective_at)
        return changed, policy.verified_draft_effects(changed, plan)

    return _change_drafts(commands, verify)


def _open_draft(
    work: UnitOfWork[OpenDraft], cases: CaseSet, command: OpenDraft, number: int
) -> Draft | Refused | Invalid:
    case = find_command_case(cases, command.order_id, command.member_id, work.now)
    if isinstance(case, Refused):
        return case
    effective_at = effective_time(case, command.occurred_at, command.accepted_at, work.now)
    if isinstance(effective_at, Invalid):
        return effective_at
    if refused := policy.check_may_open_draft(case, command.actor, effective_at):
        return refused
    return Draft(
        draft_id=f"{command.order_id}-{number}",
        order_id=command.order_id,
        seller_id=case.order.seller_id,
        order_version=case.order.version,
        opened_at=effective_at,
        consolidate=command.consolidate,
        values={group: Choice(choice) for group, choice in command.values.model_dump().items()},
    )


_ChangedDraft = tuple[Draft, dict[str, Any]]
"""A draft as it is stored, and the effects to answer."""


@dataclass(frozen=True, slots=True)
class _DraftCommandContext:
    conn: Any
    draft: Draft
    case: Case
    effective_at: datetime
    lines: Sequence[Any]

    @property
    def remaining(self) -> dict[int, int]:
        return {line.line_no: line.quantity - line.removed - line.returned for line in self.lines}

    def plan(self) -> ReturnPlan:
        # Without locks or writes.
        lines = orders.order_lines_to_return(self.lines)
        plan = plan_return(
            self.case.order.order_id,
            lines,
            inventory.load_stock_view(self.conn, lines, lock=False),
            choices=self.draft.choices,
            release_auto_stockroom=self.case.terms.release_auto_stockroom,
        )
        return returns.preview_planned_returns(self.conn, [plan])[0]


def _change_drafts(
    commands: Sequence[DraftCommandT],
    change: Callable[[DraftCommandT, _DraftCommandContext], _ChangedDraft | Invalid],
) -> list[Answer]:
    with unit_of_work(commands) as work:
        order_ids = drafts.load_order_ids_of_drafts(work.conn, [c.draft_id for c in work.pending])
        actors = [c.member_id for c in work.pending if c.member_id is not None]
        cases = lock_case_set(work.conn, order_ids.values(), member_ids=actors)
        known = drafts.load_drafts(work.conn, order_ids)
        lines = orders.load_order_lines(work.conn, order_ids.values())
        changed_drafts: dict[str, Draft] = {}
        for command in work.pending:
            context = _load_draft(work, command, known.get(command.draft_id), cases, lines)
            result = change(command, context) if isinstance(context, _DraftCommandContext) else context
            order_id = order_ids.get(command.draft_id)
            if isinstance(result, Refused | Invalid):
                work.answer(command, result, order_id=order_id)
                continue
            draft, effects = result
            known[draft.draft_id] = changed_drafts[draft.draft_id] = draft
            work.answer(command, replace(Answer.done(command, effects), order_id=order_id))
        drafts.update_drafts(work.conn, list(changed_drafts.values()))
    return work.answers


def _load_draft(
    work: UnitOfWork[Any],
    command: DraftCommand,
    draft: Draft | None,
    cases: CaseSet,
    lines: Mapping[int, Sequence[Any]],
) -> _DraftCommandContext | Refused | Invalid:
    if draft is None:
        return policy.draft_unknown(command.draft_id)
    case = find_command_case(cases, draft.order_id, command.member_id, work.now)
    if isinstance(case, Refused):
        return case
    if refused := policy.check_draft_owner(draft, command.actor):
        return refused
    effective_at = effective_time(case, command.occurred_at, command.accepted_at, work.now)
    if isinstance(effective_at, Invalid):
        return effective_at
    if refused := policy.check_draft_usable(draft, case, command.actor, effective_at):
        return refused
    return _DraftCommandContext(work.conn, draft, case, effective_at, lines[draft.order_id])
