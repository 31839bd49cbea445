"""What does every command ask first?  A party or staff, an order that lives, the right role: in this precedence (contract 2.1)."""

from __future__ import annotations

from policies.cases import Actor, Case
from policies.statuses import Role, Status
from policies.texts import is_visible
from policies.verdicts import Code, Refused


def check_party(case: Case, actor: Actor) -> Refused | None:
    """A stranger can do nothing (R18)."""
    if case.role_of(actor) is None:
        return Refused(Code.NOT_A_PARTY, f"This member is neither the buyer nor the seller of {case.named}.")
    return None


def check_not_cancelled(case: Case) -> Refused | None:
    """Cancelled is final: nothing is possible any more (R56, T22)."""
    if case.order.status is Status.CANCELLED:
        return Refused(
            Code.ALREADY_CANCELLED,
            f"{case.named.capitalize()} is cancelled, and a cancelled order is never reinstated.",
        )
    return None


def check_role(case: Case, actor: Actor, *allowed: Role, act: str) -> Refused | None:
    """First gate of every command: a party or staff, an order that lives, and the right role, in this precedence."""
    if refused := check_party(case, actor) or check_not_cancelled(case):
        return refused
    if case.role_of(actor) not in allowed:
        who = " or ".join(_spoken(role) for role in allowed)
        return Refused(Code.WRONG_ROLE, f"Only {who} can {act}.", unblocked_by=f"{who} doing it")
    return None


def check_comment(comment: str | None) -> Refused | None:
    """A comment that is there but says nothing is refused (R5)."""
    if comment is not None and not is_visible(comment):
        return Refused(Code.COMMENT_REQUIRED, "Please add a comment: it must say something.", unblocked_by="a comment")
    return None


def _spoken(role: Role) -> str:
    return {Role.BUYER: "the buyer", Role.SELLER: "the seller", Role.STAFF: "staff"}.get(role, str(role))
