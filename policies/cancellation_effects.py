"""What follows from a cancellation?  The strike, the fee, the removal requests, and what both parties are told (rules.md 8, 9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from policies import credits as fees
from policies.cancellation import returns_items, strike_recipient
from policies.cases import Case, Member
from policies.inventory import ReturnTotals
from policies.members import add_strike as member_struck
from policies.notices import notify_member, notify_party
from policies.statuses import Role
from policies.verdicts import Granted, OutboxMessage


def apply_strike(case: Case, granted: Granted) -> Granted:
    """The granted cancellation with the strike it gives, and with what is told of a privilege that is lost by it."""
    after = granted.case
    role = strike_recipient(after.order.basis) if after.order.basis is not None else None
    if role is None:
        return granted
    terms = after.alert.terms if after.alert is not None else after.terms
    member = member_struck(after.member(role), role, after.order.order_id, terms)
    lost = _lost_privilege(case.member(role), member, role, after)
    moved = replace(after, buyer=member) if role is Role.BUYER else replace(after, seller=member)
    return replace(granted, case=moved, messages=(*granted.messages, *lost))


def add_cancellation_effects(
    case: Case, granted: Granted, back: ReturnTotals, *, by: Role | None, at: datetime, pending_removals: int
) -> Granted:
    """The granted cancellation with its fee, its event, its answer and what is promised by its commit to followers."""
    after, basis = granted.case, granted.case.order.basis
    assert basis is not None
    fee = fees.decide_fee(after.order, basis, at, case.terms)
    fee_effects = fees.fee_effects(fee)
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
        notify_party(after, Role.SELLER, "order_cancelled", **facts, fee=fee_effects),
        notify_party(after, Role.BUYER, "order_cancelled", **facts),
    ]
    if settled := fees.fee_message(fee, after.order, at):
        messages.append(settled)
    if pending_removals:
        order_id = after.order.order_id
        messages.append(OutboxMessage("removals.cancel_pending", f"removals:{order_id}", order_id))
    event = replace(granted.events[0], changes={"returned": back.lines, "fee": fee_effects})
    effects = {"basis": basis, "lines": back.lines, "removals_cancelled": pending_removals, "fee": fee_effects}
    return replace(granted, events=(event,), messages=tuple(messages), effects=effects)


def _lost_privilege(before: Member, after: Member, role: Role, case: Case) -> tuple[OutboxMessage, ...]:
    lost = (before.can_buy and not after.can_buy) or (before.can_sell and not after.can_sell)
    if not lost:
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
