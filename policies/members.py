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
    strikes = member.strikes(role)
    return member if order_id in strikes else _with_strikes(member, role, (*strikes, order_id), terms)


def remove_strike(member: Member, role: Role, order_id: int, terms: Terms) -> Member:
    strikes = tuple(strike for strike in member.strikes(role) if strike != order_id)
    return _with_strikes(member, role, strikes, terms)


def reinstate_member(member: Member) -> Member:
    return replace(member, terminated=False, can_buy=True, can_sell=True, strikes_as_buyer=(), strikes_as_seller=())


def _with_strikes(member: Member, role: Role, strikes: tuple[int, ...], terms: Terms) -> Member:
    is_allowed = len(strikes) < terms.strike_limit
    if role is Role.BUYER:
        return replace(member, strikes_as_buyer=strikes, can_buy=is_allowed)
    return replace(member, strikes_as_seller=strikes, can_sell=is_allowed)
