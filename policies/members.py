"""Members' privileges and strikes (R53 to R55, R95 to R99)."""

from __future__ import annotations

from policies.cases import Member
from policies.copies import replace
from policies.statuses import Role
from policies.terms import Terms
from policies.verdicts import Code, Refused


def member_unknown(member_id: str) -> Refused:
    return Refused(Code.MEMBER_UNKNOWN, f"There is no member {member_id}.", unblocked_by="the member being recorded")


def check_members_may_trade(buyer: Member, seller: Member, *, buyer_has_npb_in_store: bool) -> Refused | None:
    for member in (buyer, seller):
        if member.terminated:
            return Refused(
                Code.MEMBER_TERMINATED,
                f"The account of member {member.member_id} is closed.",
                unblocked_by="staff reinstating the account",
            )
    why = ""
    if not buyer.can_buy:
        why = f"{buyer.member_id} may not buy: the privilege was revoked after too many unpaid orders."
    elif not seller.can_sell:
        why = f"{seller.member_id} may not sell: the privilege is suspended after too many failed orders."
    if why:
        return Refused(Code.PRIVILEGE_REVOKED, f"Member {why}", unblocked_by="staff reinstating the member")
    if buyer_has_npb_in_store:
        return Refused(
            Code.BUYER_BLOCKED_IN_STORE,
            "An order of this buyer in this store is in NPB; until that is settled the buyer cannot order there.",
            unblocked_by="that order being paid and its alert removed, or cancelled",
        )
    return None


def add_strike(member: Member, role: Role, order_id: int, terms: Terms) -> Member:
    if order_id in member.strikes(role):
        return member
    return update_privileges(_with_strikes(member, role, (*member.strikes(role), order_id)), role, terms)


def remove_strike(member: Member, role: Role, order_id: int, terms: Terms) -> Member:
    remaining = tuple(strike for strike in member.strikes(role) if strike != order_id)
    return update_privileges(_with_strikes(member, role, remaining), role, terms)


def reinstate_member(member: Member) -> Member:
    return replace(member, terminated=False, can_buy=True, can_sell=True, strikes_as_buyer=(), strikes_as_seller=())


def update_privileges(member: Member, role: Role, terms: Terms) -> Member:
    allowed = len(member.strikes(role)) < terms.strike_limit
    if allowed == (member.can_buy if role is Role.BUYER else member.can_sell):
        return member
    return replace(member, can_buy=allowed) if role is Role.BUYER else replace(member, can_sell=allowed)


def _with_strikes(member: Member, role: Role, strikes: tuple[int, ...]) -> Member:
    if role is Role.BUYER:
        return replace(member, strikes_as_buyer=strikes)
    return replace(member, strikes_as_seller=strikes)
