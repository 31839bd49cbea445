"""How does a seller edit what comes back before cancelling?  Four steps: choose, edit, verify, cancel with the draft.

Steps 1 to 3 change a draft and nothing else (R72).  Step 4 is `orders.cancel`, which asks here whether the draft may
still be used and re-plans the return with its choices in the one transaction that cancels (R74).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from policies.cancellation import basis_for, returns_items
from policies.cases import Actor, Case
from policies.consolidation import Choice, Choices, LineEdit
from policies.inventory import ReturnPlan
from policies.preconditions import check_not_cancelled, check_role
from policies.statuses import Basis, Role, Status
from policies.timestamps import describe_timestamp, format_timestamp
from policies.verdicts import Code, Invalid, Refused

DRAFT_LIFETIME = timedelta(hours=24)


class DraftState(StrEnum):
    """Where a draft is in its life.  Expired is not stored: it follows from when the draft was opened."""

    OPEN = "open"
    VERIFIED = "verified"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Draft:
    """One seller's decisions about the return of one order.  `order_changed`: something happened to it since."""

    draft_id: str
    order_id: int
    seller_id: str
    order_version: int
    opened_at: datetime
    consolidate: bool
    values: Mapping[str, Choice] = field(default_factory=dict)
    edits: Mapping[int, LineEdit] = field(default_factory=dict)
    state: DraftState = DraftState.OPEN
    verified_at: datetime | None = None
    used_at: datetime | None = None
    order_changed: bool = False

    @property
    def expires_at(self) -> datetime:
        """From this instant on the draft cannot be used."""
        return self.opened_at + DRAFT_LIFETIME

    @property
    def choices(self) -> Choices:
        """What `policies.inventory.plan_return` needs to know."""
        return Choices(self.consolidate, self.values, self.edits)


@dataclass(frozen=True, slots=True)
class Edit:
    """What step 2 says of one line; None leaves that part as it is."""

    line_no: int
    delete: bool | None = None
    quantity: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def check_may_open(case: Case, actor: Actor, now: datetime) -> Refused | None:
    """Step 1: whoever could cancel now and get items back may prepare it; refused as `orders.cancel` would be."""
    if refused := check_role(case, actor, Role.SELLER, act="prepare what comes back"):
        return refused
    if case.order.status in (Status.NRS, Status.NSS) or case.seller.terminated:
        return _nothing_returns(case)
    basis = basis_for(case, actor, now)
    return basis if isinstance(basis, Refused) else None


def draft_unknown(order_id: int | None = None) -> Refused:
    """There is no such draft (of this order)."""
    of_order = "" if order_id is None else f" of order {order_id}"
    return Refused(Code.DRAFT_UNKNOWN, f"There is no draft with this id{of_order}.", unblocked_by="opening a draft")


def check_owner(draft: Draft | None, actor: Actor) -> Refused | None:
    """The first question of steps 2 and 3: is there such a draft, and is it theirs?"""
    if draft is None:
        return draft_unknown()
    if actor.staff is None and actor.member_id != draft.seller_id:
        return Refused(Code.NOT_A_PARTY, "This draft belongs to another member.")
    return None


def check_usable(draft: Draft, case: Case, actor: Actor, now: datetime) -> Refused | None:
    """Whether steps 2 and 3 may go on with the draft."""
    if refused := check_role(case, actor, Role.SELLER, act="prepare what comes back"):
        return refused
    return _lives(draft, case, now)


def check_ready_to_cancel(draft: Draft, case: Case, basis: Basis, now: datetime) -> Refused | None:
    """Step 4: whether the order may be cancelled with this draft.  Asked after eligibility (R74)."""
    if not returns_items(basis, seller_terminated=case.seller.terminated):
        return _nothing_returns(case)
    if refused := check_not_cancelled(case) or _lives(draft, case, now):
        return refused
    if draft.state is not DraftState.VERIFIED:
        return Refused(
            Code.DRAFT_INCOMPLETE,
            "The draft was not verified since its last edit, or something in it is wrong; verify it first.",
            unblocked_by="a verification without problems",
        )
    return None


def check_plan(plan: ReturnPlan) -> Refused | None:
    """Step 4 again: the lots may have changed since the verification, so that the values do not fit any more."""
    if not plan.problems:
        return None
    said = "; ".join(f"line {line_no}: {name} {sentence}" for line_no, name, sentence in plan.problems)
    return Refused(
        Code.DRAFT_INCOMPLETE,
        f"With the inventory as it is now the draft does not fit: {said}.",
        unblocked_by="editing and verifying the draft again",
    )


def apply_edits(draft: Draft, edits: Sequence[Edit], remaining: Mapping[int, int]) -> Draft | Invalid:
    """Step 2.  `remaining` is what each line still has; no more can come back, and the draft must be verified again."""
    found = dict(draft.edits)
    seen: set[int] = set()
    for index, one in enumerate(edits):
        if one.line_no not in remaining:
            return Invalid(f"lines.{index}.line_no", "the order has no such line")
        if one.line_no in seen:
            return Invalid(f"lines.{index}.line_no", "is named twice")
        if one.quantity is not None and one.quantity > remaining[one.line_no]:
            return Invalid(f"lines.{index}.quantity", "more than what remains of this line")
        if one.delete and (one.quantity is not None or one.fields):
            return Invalid(f"lines.{index}.delete", "a deleted line has neither quantity nor fields")
        seen.add(one.line_no)
        before = found.get(one.line_no, LineEdit())
        found[one.line_no] = LineEdit(
            delete=before.delete if one.delete is None else one.delete,
            quantity=before.quantity if one.quantity is None else one.quantity,
            fields={**before.fields, **one.fields},
        )
    return replace(draft, edits=found, state=DraftState.OPEN, verified_at=None)


def mark_verified(draft: Draft, plan: ReturnPlan, now: datetime) -> Draft:
    """Step 3: a draft whose plan has no problems may be used."""
    if plan.problems:
        return replace(draft, state=DraftState.OPEN, verified_at=None)
    return replace(draft, state=DraftState.VERIFIED, verified_at=now)


def draft_json(draft: Draft, plan: ReturnPlan) -> dict[str, Any]:
    """What step 3 shows: per line the lot it goes to and that lot's values afterwards, and what is wrong."""
    return {
        "draft_id": draft.draft_id,
        "state": draft.state,
        "expires_at": format_timestamp(draft.expires_at),
        "lines": [
            line.effects()
            | {
                "new": line.lot_id in plan.lots and line.lot_id not in plan.before,
                "values": plan.lots[line.lot_id].snapshot() if line.lot_id is not None else None,
            }
            for line in plan.lines
        ],
        "problems": [{"line_no": n, "field": name, "message": sentence} for n, name, sentence in plan.problems],
    }


def _lives(draft: Draft, case: Case, now: datetime) -> Refused | None:
    if draft.order_changed:
        return Refused(
            Code.DRAFT_STALE,
            f"{case.named.capitalize()} has changed since the draft was opened.",
            unblocked_by="opening a new draft",
        )
    if now >= draft.expires_at:
        return Refused(
            Code.DRAFT_EXPIRED,
            f"The draft could be used until {describe_timestamp(draft.expires_at)}.",
            unblocked_by="opening a new draft",
        )
    return None


def _nothing_returns(case: Case) -> Refused:
    why = (
        "the seller's account is terminated"
        if case.seller.terminated
        else "a cancellation by the buyer puts nothing back into the inventory"
    )
    return Refused(Code.RETURN_NOT_ALLOWED, f"Nothing of {case.named} can be prepared to come back: {why}.")
