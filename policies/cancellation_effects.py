"""What follows from a cancellation?  The strike, the fee, the removal requests, and what both parties are told (rules.md 8, 9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from policies import credits as fees
from policies.cancellation import causes_strike, returns_items
from policies.cases import Case, Member
from policies.inventory import Returned
from policies.members import add_strike as member_struck
from policies.notices import notify_member, notify_party
from policies.statuses import Role
from policies.verdicts import Granted, OutboxMessage


def with_strike(case: Case, granted: Granted) -> Granted:
    """The granted cancellation with the strike it gives, and with what is told of a privilege that is lost by it."""
    after = granted.case
    role = causes_strike(after.order.basis) if after.order.basis is not None else None
    if role is None:
        return granted
    terms = after.alert.terms if after.alert is not None else after.terms
    member = member_struck(after.member(role), role, after.order.order_id, terms)
    lost = _lost_privilege(case.member(role), member, role, after)
    moved = replace(after, buyer=member) if role is Role.BUYER else replace(after, seller=member)
    return replace(granted, case=moved, promises=(*granted.promises, *lost))


def cancellation_effects(
    case: Case, granted: Granted, back: Returned, *, by: Role | None, at: datetime, pending_removals: int
) -> Granted:
    """The granted cancellation with its fee, its event, its answer and what is promised by its commit to followers."""
    after, basis = granted.case, granted.case.order.basis
    assert basis is not None
    fee = fees.settle(after.order, basis, at, case.terms)
    fee_effects = fees.effects_of(fee)
    facts = {
        "basis": basis,
        "by": by,
        "returns": returns_items(basis, seller_terminated=case.seller.terminated),
        "lines_returned": back.lines_returned,
        "units_returned": back.units_returned,
        "strike": causes_strike(basis) is not None,
    }
    promises = [
        *granted.promises,
        notify_party(after, Role.SELLER, "order_cancelled", **facts, fee=fee_effects),
        notify_party(after, Role.BUYER, "order_cancelled", **facts),
    ]
    if settled := fees.outbox_message_for(fee, after.order, at):
        promises.append(settled)
    if pending_removals:
        order_id = after.order.order_id
        promises.append(OutboxMessage("removals.cancel_pending", f"removals:{order_id}", order_id))
    event = replace(granted.events[0], changes={"returned": back.lines, "fee": fee_effects})
    effects = {"basis": basis, "lines": back.lines, "removals_cancelled": pending_removals, "fee": fee_effects}
    return replace(granted, events=(event,), promises=tuple(promises), effects=effects)


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
