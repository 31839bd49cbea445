"""Commands about drafts of returns, steps 1 to 3: open, edit, verify. Step 4 is `orders.cancel` with the draft."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, create_model, model_serializer

from models import drafts, inventory, orders, returns
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import drafts as policy
from policies.cases import Case
from policies.consolidation import CONSOLIDATED_FIELDS
from policies.drafts import Draft
from policies.lots import STOCKROOMS, format_price
from policies.purchases import MAX_LINES
from policies.returns import plan_return
from policies.verdicts import GrantedPart, Refused, Verdict
from tasks.cases import CommandT, DecidePart, decide_case, decide_parts, lock_command_cases
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

Int32 = Annotated[int, Field(strict=True, ge=-MAX_INT32, le=MAX_INT32)]
DraftLotText = Annotated[Text, StringConstraints(max_length=4000)]


_MORE_CHOICES = {"description": ("concatenate",), "remarks": ("concatenate",), "cost": ("average",)}
_VALUE_CHOICES: dict[str, Any] = {
    group: (Literal[("old", "new", *_MORE_CHOICES.get(group, ()))], "old") for group in CONSOLIDATED_FIELDS
}
ValueChoices = create_model("ValueChoices", __base__=StrictModel, **_VALUE_CHOICES)
"""Step 1: which value each group of fields takes when items are merged into a lot; by default the lot's (`old`)."""


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


class OpenDraft(OrderCommand):
    task: ClassVar[str] = "drafts.open"
    consolidate: StrictBool
    values: ValueChoices


class DraftCommand(ActorCommand):
    draft_id: DraftId


class EditDraft(DraftCommand):
    task: ClassVar[str] = "drafts.edit"
    lines: Annotated[tuple[EditedLine, ...], Field(min_length=1, max_length=MAX_LINES)]


def _open_draft(command: OpenDraft, case: Case, number: int, now: datetime) -> GrantedPart[Draft] | Refused:
    return policy.open_draft(case, command.actor, number, command.consolidate, dict(command.values), now)


@command_task(
    OpenDraft,
    example=SELLER | {"consolidate": True, "values": {"price": "old", "remarks": "concatenate", "cost": "average"}},
    option=DeclaredOption("prepare the return of items", lambda c, o, now: _open_draft(c, o.case, 1, now)),
)
def open_draft(commands: list[OpenDraft]) -> list[Answer]:
    """Open a draft (step 1): choose how returning items are merged into existing lots."""
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work)
        counts = Counter(drafts.count_drafts_by_order(work.conn, [c.order_id for c in work.pending]))
        opened: list[Draft] = []

        def decide(command: OpenDraft, case: Case, now: datetime) -> Verdict:
            return _open_draft(command, case, counts[command.order_id] + 1, now)

        for command in work.pending:
            verdict = decide_case(work, cases, command, decide, order_id=command.order_id)
            if isinstance(verdict, GrantedPart):
                counts[command.order_id] += 1
                opened.append(verdict.part)
            work.answer(command, verdict)
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

    def edit(_conn: Any, command: EditDraft, case: Case, draft: Draft, lines: Sequence[Any], now: datetime) -> Verdict:
        edits = [(line.line_no, line.model_dump(exclude={"line_no"}, exclude_none=True)) for line in command.lines]
        remaining = {line.line_no: line.quantity - line.removed - line.returned for line in lines}
        return policy.edit_draft(case, draft, command.actor, edits, remaining, now)

    return _change_drafts(commands, edit)


@command_task(DraftCommand, name="drafts.verify", example={"draft_id": "d-1", "member_id": "s-881"})
def verify_draft(commands: list[DraftCommand]) -> list[Answer]:
    """Verify a draft (step 3): return the lot that each line goes to and its new values, or the problems."""

    def verify(
        conn: Any, command: DraftCommand, case: Case, draft: Draft, lines: Sequence[Any], now: datetime
    ) -> Verdict:
        if refused := policy.check_draft_usable(draft, case, command.actor, now):
            return refused
        returning = orders.order_lines_to_return(lines)
        plan = plan_return(
            draft.order_id,
            returning,
            inventory.load_stock_view(conn, {line.item.key for line in returning}, lock=False),
            choices=draft.choices,
            release_auto_stockroom=case.terms.release_auto_stockroom,
        )
        (preview,) = returns.preview_planned_returns(conn, [plan])
        return policy.verify_draft(case, draft, preview, now)

    return _change_drafts(commands, verify)


def _change_drafts(commands: Sequence[CommandT], decide: DecidePart[CommandT]) -> list[Answer]:
    def write(work: UnitOfWork[Any], changed: Sequence[Draft]) -> None:
        drafts.update_drafts(work.conn, changed)

    return decide_parts(
        commands, key="draft_id", load=drafts.load_drafts, unknown=policy.draft_unknown, decide=decide, write=write
    )
