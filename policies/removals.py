"""Who can request, approve, deny and withdraw the removal of items from an order (R20, R59, R60, R80)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from policies.cases import Actor, Case
from policies.preconditions import check_no_problem, check_role
from policies.statuses import OPEN_FLOW, Role, counterparty
from policies.texts import pluralize
from policies.verdicts import Code, Event, GrantedPart, Invalid, Refused

CANCEL_REMOVALS_TASK = "removals.cancel_pending"


class RemovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Removal:
    """An item removal request.  `lines` are (line_no, units); `return_items` is None until decided."""

    order_id: int
    requested_by: Role
    lines: tuple[tuple[int, int], ...]
    requested_at: datetime
    state: RemovalState = RemovalState.PENDING
    return_items: bool | None = None
    removal_id: int | None = None
    decided_at: datetime | None = None


def removal_unknown(removal_id: int) -> Refused:
    return Refused(Code.REMOVAL_UNKNOWN, f"There is no removal request {removal_id}.")


def request_removal(
    case: Case,
    actor: Actor,
    lines: tuple[tuple[int, int], ...],
    return_items: bool | None,
    remaining: Mapping[int, int],
    now: datetime,
) -> GrantedPart[Removal] | Refused | Invalid:
    if refused := check_role(case, actor, Role.BUYER, Role.SELLER, act="ask for items to be removed"):
        return refused
    role = case.role_of(actor)
    assert role is not None
    if refused := check_removal_possible(case):
        return refused
    if return_items is not None and role is Role.BUYER:
        return Invalid("return_items", "only the seller decides whether removed items return to the inventory")
    if problem := _check_removal_lines(case, lines, remaining):
        return problem
    returns = return_items is not False if role is Role.SELLER else None
    removal = Removal(case.order.order_id, role, lines, now, return_items=returns)
    note = f"The {role} asks to take {_describe_removed_units(removal)} out of the order."
    return GrantedPart(case, event=Event("removals.requested", note), part=removal)


def approve_removal(
    case: Case,
    removal: Removal,
    actor: Actor,
    return_items: bool | None,
    remaining: Mapping[int, int],
    now: datetime,
) -> GrantedPart[Removal] | Refused | Invalid:
    """Approve a request.  The order itself starts again with what remains of it (`policies.orders.restart_order`)."""
    by = counterparty(removal.requested_by)
    if refused := _check_removal_decidable(case, removal, actor, by, "approve") or check_removal_possible(case):
        return refused
    if return_items is not None and removal.requested_by is Role.SELLER:
        return Invalid("return_items", "the seller has already decided this when asking for the removal")
    if problem := _check_removal_lines(case, removal.lines, remaining):
        return _refuse_outdated_removal(removal, remaining) if isinstance(problem, Invalid) else problem
    returns = removal.return_items if removal.requested_by is Role.SELLER else return_items is not False
    approved = replace(removal, state=RemovalState.APPROVED, return_items=returns, decided_at=now)
    to = "back to the inventory" if removal_returns_to_stock(approved, case) else "and not back to the inventory"
    note = f"{_describe_removed_units(removal)} taken out, {to}; order date, payment and fee start again."
    return _grant_removal_decision(case, approved, note)


def close_removal(
    case: Case, removal: Removal, actor: Actor, state: RemovalState, now: datetime
) -> GrantedPart[Removal] | Refused:
    """Deny a request as the other party, or withdraw it as the party who made it."""
    if state is RemovalState.DENIED:
        by, act, note = counterparty(removal.requested_by), "deny", "The removal request is denied; nothing changes."
    else:
        by, act, note = removal.requested_by, "withdraw", "The removal request is withdrawn."
    if refused := _check_removal_decidable(case, removal, actor, by, act):
        return refused
    return _grant_removal_decision(case, replace(removal, state=state, decided_at=now), note)


def removal_returns_to_stock(removal: Removal, case: Case) -> bool:
    # A terminated seller's stock never changes (R65).
    return bool(removal.return_items) and not case.seller.terminated


def units_open_to_removal(lines: Sequence[Any]) -> dict[int, int]:
    return {line.line_no: line.quantity - line.removed for line in lines}


def _describe_removed_units(removal: Removal) -> str:
    units = sum(quantity for _, quantity in removal.lines)
    return f"{pluralize(units, 'unit', 'units')} of {pluralize(len(removal.lines), 'line', 'lines')}"


def _grant_removal_decision(case: Case, removal: Removal, note: str) -> GrantedPart[Removal]:
    event = Event(f"removals.{removal.state}", note, {"removals": {str(removal.removal_id): removal.state}})
    effects = {"removal_id": removal.removal_id, "state": removal.state}
    return GrantedPart(case, event=event, effects=effects, part=removal)


def _refuse_outdated_removal(removal: Removal, remaining: Mapping[int, int]) -> Invalid:
    details = "; ".join(
        f"{units} of line {line_no} are to be taken out, and {remaining.get(line_no, 0)} remain"
        for line_no, units in removal.lines
        if units > remaining.get(line_no, 0)
    )
    return Invalid("removal_id", f"no longer fits the order: {details}; deny it, or make a new request")


def _check_removal_decidable(case: Case, removal: Removal, actor: Actor, by: Role, act: str) -> Refused | None:
    if refused := check_role(case, actor, by, act=f"{act} this removal request"):
        return refused
    if removal.state is not RemovalState.PENDING:
        return Refused(
            Code.REMOVAL_NOT_PENDING, f"This removal request is {removal.state} already and cannot change any more."
        )
    return None


def check_removal_possible(case: Case) -> Refused | None:
    if refused := check_no_problem(case, "items cannot be removed until that is closed"):
        return refused
    if case.order.status not in OPEN_FLOW:
        return Refused(Code.WRONG_STATUS, f"{case.label.capitalize()} is {case.order.status}.")
    return None


def _check_removal_lines(
    case: Case, lines: tuple[tuple[int, int], ...], remaining: Mapping[int, int]
) -> Refused | Invalid | None:
    for index, (line_no, quantity) in enumerate(lines):
        if line_no not in remaining:
            return Invalid(f"lines.{index}.line_no", "the order has no such line")
        if quantity > remaining[line_no]:
            return Invalid(f"lines.{index}.quantity", "more than what remains of this line")
    if sum(quantity for _, quantity in lines) >= sum(remaining.values()):
        return Refused(
            Code.NOTHING_WOULD_REMAIN,
            f"Nothing would remain of {case.label}; an order is emptied by cancelling it.",
            unblocked_by="a cancel request instead",
        )
    return None
