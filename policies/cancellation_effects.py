"""Everything that follows from a cancellation: strike, fee, removal requests and emails."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

from policies.cancellation import returns_items, strike_recipient
from policies.cases import Case, Member
from policies.credits import decide_fee, fee_effects, fee_message
from policies.members import add_strike
from policies.notices import notify_member, notify_party
from policies.returns import ReturnTotals
from policies.statuses import Role
from policies.verdicts import Granted, OutboxMessage


def apply_strike(case: Case, granted: Granted) -> Granted:
    after = granted.case
    role = strike_recipient(after.order.basis) if after.order.basis is not None else None
    if role is None:
        return granted
    terms = after.alert.terms if after.alert is not None else after.terms
    member = add_strike(after.member(role), role, after.order.order_id, terms)
    revoked = _notify_revoked(case.member(role), member, role, after)
    moved = replace(after, buyer=member) if role is Role.BUYER else replace(after, seller=member)
    return replace(granted, case=moved, messages=(*granted.messages, *revoked))


def add_cancellation_effects(
    case: Case,
    granted: Granted,
    back: ReturnTotals,
    *,
    by: Role | None,
    at: datetime,
    pending_removals: int,
    first_open: date | None = None,
) -> Granted:
    """Add fee, event, answer and outbox messages to a granted cancellation; `first_open` as in `decide_fee`."""
    after, basis = granted.case, granted.case.order.basis
    assert basis is not None
    decision = decide_fee(after.order, basis, at, case.terms, first_open)
    fee = fee_effects(decision)
    facts = {
        "basis": basis,
        "by": by,
        "returns": returns_items(basis, seller_terminated=case.seller.terminated),
        "lines_returned": back.lines_returned,
        "units_returned": back.units_returned,
        "strike": strike_recipient(basis) is not None,
    }
    messages = [
        *granted.messages,
        notify_party(after, Role.SELLER, "order_cancelled", **facts, fee=fee),
        notify_party(after, Role.BUYER, "order_cancelled", **facts),
    ]
    if posting := fee_message(decision, after.order, at):
        messages.append(posting)
    if pending_removals:
        order_id = after.order.order_id
        messages.append(OutboxMessage("removals.cancel_pending", f"removals:{order_id}", order_id))
    event = replace(granted.events[0], changes={"returned": back.lines, "fee": fee})
    effects = {"basis": basis, "lines": back.lines, "removals_cancelled": pending_removals, "fee": fee}
    return replace(granted, events=(event,), messages=tuple(messages), effects=effects)


def _notify_revoked(before: Member, after: Member, role: Role, case: Case) -> tuple[OutboxMessage, ...]:
    revoked = (before.can_buy and not after.can_buy) or (before.can_sell and not after.can_sell)
    if not revoked:
        return ()
    return (
        notify_member(
            role,
            "privilege_revoked",
            member_id=after.member_id,
            order_id=case.order.order_id,
            occasion=f"{case.order.order_id}:{case.order.version + 1}",
            privilege="buying" if role is Role.BUYER else "selling",
            strikes=list(after.strikes(role)),
        ),
    )
