"""Drafts of a return: the seller chooses, edits, verifies, and cancels with the draft.

Steps 1 to 3 change only the draft (R72).  Step 4 is `orders.cancel`, which checks here that the draft is usable and
plans the return again with its choices in the transaction that cancels (R74).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from policies.cancellation import cancel_basis_for, returns_items
from policies.cases import Actor, Case
from policies.consolidation import Choice, Choices, LineEdit
from policies.preconditions import check_role
from policies.returns import ReturnPlan
from policies.statuses import CancelBasis, Role, Status
from policies.timestamps import describe_timestamp, format_timestamp
from policies.verdicts import Code, GrantedPart, Invalid, Refused

DRAFT_LIFETIME = timedelta(hours=24)


class DraftState(StrEnum):
    OPEN = "open"
    VERIFIED = "verified"
    USED = "used"


@dataclass(frozen=True, slots=True)
class Draft:
    draft_id: str
    order_id: int
    seller_id: str
    order_version: int
    opened_at: datetime
    choices: Choices
    state: DraftState = DraftState.OPEN
    verified_at: datetime | None = None
    verified_lines: Mapping[int, str] = field(default_factory=dict)
    order_changed: bool = False

    @property
    def expires_at(self) -> datetime:
        return self.opened_at + DRAFT_LIFETIME


def open_draft(
    case: Case, actor: Actor, number: int, consolidate: bool, values: Mapping[str, str], now: datetime
) -> GrantedPart[Draft] | Refused:
    """Step 1: open the order's draft of this `number`."""
    if refused := check_role(case, actor, Role.SELLER, act="prepare what comes back"):
        return refused
    if case.order.status in (Status.NRS, Status.NSS) or case.seller.terminated:
        return _draft_not_allowed(case)
    basis = cancel_basis_for(case, actor, now)
    if isinstance(basis, Refused):
        return basis
    order = case.order
    choices = Choices(consolidate, {group: Choice(choice) for group, choice in values.items()})
    draft = Draft(f"{order.order_id}-{number}", order.order_id, order.seller_id, order.version, now, choices)
    return GrantedPart(case, effects=_draft_effects(draft), part=draft)


def draft_unknown(draft_id: str, order_id: int | None = None) -> Refused:
    of_order = "" if order_id is None else f" of order {order_id}"
    return Refused(Code.DRAFT_UNKNOWN, f"There is no draft {draft_id}{of_order}.", unblocked_by="opening a draft")


def check_draft_usable(draft: Draft, case: Case, actor: Actor, now: datetime) -> Refused | None:
    if actor.staff is None and actor.member_id != draft.seller_id:
        return Refused(Code.NOT_A_PARTY, "This draft belongs to another member.")
    if refused := check_role(case, actor, Role.SELLER, act="prepare what comes back"):
        return refused
    return _check_draft_current(draft, case, now)


def check_draft_ready_to_cancel(draft: Draft, case: Case, basis: CancelBasis, now: datetime) -> Refused | None:
    if not returns_items(basis, seller_terminated=case.seller.terminated):
        return _draft_not_allowed(case)
    if refused := _check_draft_current(draft, case, now):
        return refused
    if draft.state is not DraftState.VERIFIED:
        return Refused(
            Code.DRAFT_INCOMPLETE,
            "The draft has not been verified since its last edit, or something in it is wrong; verify it first.",
            unblocked_by="a verification without problems",
        )
    return None


def check_plan_unchanged(draft: Draft, plan: ReturnPlan) -> Refused | None:
    """Step 4: check that the plan is the one that was verified, apart from quantities, which are added (R110)."""
    now = fingerprint_draft_lines(plan)
    changed = [line_no for line_no in sorted(now) if now[line_no] != draft.verified_lines.get(line_no)]
    if not changed:
        return None
    lines = ", ".join(str(line_no) for line_no in changed)
    return Refused(
        Code.DRAFT_STALE,
        f"A lot or its values have changed since the draft was verified; the result would now differ for line {lines}.",
        unblocked_by="verifying the draft again",
    )


def fingerprint_draft_lines(plan: ReturnPlan) -> dict[int, str]:
    fingerprints = {}
    for line in plan.lines:
        target: list[Any] = [line.returned]
        if line.lot_id is not None:
            values = plan.lots[line.lot_id].snapshot()
            del values["lot_id"], values["quantity"]
            target += [line.lot_id if line.lot_id in plan.before else "new", values]
        fingerprints[line.line_no] = hashlib.sha256(json.dumps(target, sort_keys=True).encode()).hexdigest()[:16]
    return fingerprints


def edit_draft(
    case: Case,
    draft: Draft,
    actor: Actor,
    edits: Sequence[tuple[int, Mapping[str, Any]]],
    remaining: Mapping[int, int],
    now: datetime,
) -> GrantedPart[Draft] | Refused | Invalid:
    """Step 2: edit lines, after which the draft must be verified again.

    `edits`: line numbers with the given values of a `LineEdit`.  `remaining`: units left by line.
    """
    if refused := check_draft_usable(draft, case, actor, now):
        return refused
    line_edits = dict(draft.choices.edits)
    seen: set[int] = set()
    for index, (line_no, given) in enumerate(edits):
        if line_no not in remaining:
            return Invalid(f"lines.{index}.line_no", "the order has no such line")
        if line_no in seen:
            return Invalid(f"lines.{index}.line_no", "is named twice")
        if given.get("quantity", 0) > remaining[line_no]:
            return Invalid(f"lines.{index}.quantity", "more than what remains of this line")
        if given.get("delete") and ("quantity" in given or given.get("fields")):
            return Invalid(f"lines.{index}.delete", "a deleted line has neither quantity nor fields")
        seen.add(line_no)
        before = line_edits.get(line_no, LineEdit())
        line_edits[line_no] = replace(before, **{**given, "fields": {**before.fields, **given.get("fields", {})}})
    choices = replace(draft.choices, edits=line_edits)
    edited = replace(draft, choices=choices, state=DraftState.OPEN, verified_at=None)
    return GrantedPart(case, effects=_draft_effects(edited), part=edited)


def verify_draft(case: Case, draft: Draft, plan: ReturnPlan, now: datetime) -> GrantedPart[Draft]:
    """Step 3: mark a usable draft verified if its plan has no problems."""
    if plan.problems:
        verified = replace(draft, state=DraftState.OPEN, verified_at=None)
    else:
        lines = fingerprint_draft_lines(plan)
        verified = replace(draft, state=DraftState.VERIFIED, verified_at=now, verified_lines=lines)
    return GrantedPart(case, effects=_verified_draft_effects(verified, plan), part=verified)


def _draft_effects(draft: Draft) -> dict[str, Any]:
    return {
        "draft_id": draft.draft_id,
        "state": draft.state,
        "expires_at": format_timestamp(draft.expires_at),
        "order_version": draft.order_version,
    }


def _verified_draft_effects(draft: Draft, plan: ReturnPlan) -> dict[str, Any]:
    return {
        **{name: value for name, value in _draft_effects(draft).items() if name != "order_version"},
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


def _check_draft_current(draft: Draft, case: Case, now: datetime) -> Refused | None:
    if draft.order_changed:
        code, why = Code.DRAFT_STALE, f"{case.label.capitalize()} has changed since the draft was opened."
    elif now >= draft.expires_at:
        code, why = Code.DRAFT_EXPIRED, f"The draft could be used until {describe_timestamp(draft.expires_at)}."
    else:
        return None
    return Refused(code, why, unblocked_by="opening a new draft")


def _draft_not_allowed(case: Case) -> Refused:
    why = (
        "the seller's account is terminated"
        if case.seller.terminated
        else "a cancellation by the buyer puts nothing back into the inventory"
    )
    return Refused(Code.RETURN_NOT_ALLOWED, f"Nothing of {case.label} can be prepared to come back: {why}.")
