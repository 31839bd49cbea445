"""Checks shared by commands, in order of precedence: a party or staff, not cancelled, the right role."""

from __future__ import annotations

from policies.cases import Actor, Case
from policies.statuses import Role, Status
from policies.texts import is_visible
from policies.verdicts import Code, Refused


def check_party(case: Case, actor: Actor) -> Refused | None:
    if case.role_of(actor) is None:
        return Refused(Code.NOT_A_PARTY, f"This member is neither the buyer nor the seller of {case.label}.")
    return None


def check_not_cancelled(case: Case) -> Refused | None:
    if case.order.status is Status.CANCELLED:
        return Refused(
            Code.ALREADY_CANCELLED,
            f"{case.label.capitalize()} is cancelled, and a cancelled order is never reinstated.",
        )
    return None


def check_role(case: Case, actor: Actor, *allowed: Role, act: str) -> Refused | None:
    """Check party, order and role, in this order; `act` completes "can …" in the refusal."""
    if refused := check_party(case, actor) or check_not_cancelled(case):
        return refused
    if case.role_of(actor) not in allowed:
        names = " or ".join(_role_name(role) for role in allowed)
        return Refused(Code.WRONG_ROLE, f"Only {names} can {act}.", unblocked_by=f"{names} doing it")
    return None


def check_comment(comment: str | None) -> Refused | None:
    if comment is not None and not is_visible(comment):
        return Refused(Code.COMMENT_REQUIRED, "Please add a comment: it must say something.", unblocked_by="a comment")
    return None


def _role_name(role: Role) -> str:
    return {Role.BUYER: "the buyer", Role.SELLER: "the seller", Role.STAFF: "staff"}.get(role, str(role))
