"""The actions that an actor can take on an order now, and for the others why not and from when.

Nothing is decided here: each action is put to the policy of its command with unobjectionable arguments, so that the
option says what the command would answer.  Pending removal requests have options of their own, and `orders.set_status`
lists the statuses that can be set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from policies import alerts, cancellation, drafts, late_payments, npb, ocr, orders, removals, seller_alerts
from policies.cases import Actor, AlertKind, Case
from policies.removals import Removal
from policies.statuses import Role, Status
from policies.timestamps import describe_timestamp, format_optional_timestamp
from policies.verdicts import Code, Granted, Invalid, Refused

EXAMPLE_COMMENT = "Said on the Problem Order page."
EXAMPLE_GROUNDS = "NOT_SHIPPED"


@dataclass(frozen=True, slots=True)
class Subject:
    case: Case
    remaining: Mapping[int, int] = field(default_factory=dict)
    pending_removals: Sequence[Removal] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """One action: possible, or the code, sentence and time that its command would answer with.

    `values` are the statuses for `orders.set_status`.
    """

    action: str
    possible: bool
    why: str
    code: Code | None = None
    possible_from: datetime | None = None
    unblocked_by: str = ""
    removal_id: int | None = None
    values: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        option: dict[str, Any] = {
            "action": self.action,
            "possible": self.possible,
            "code": None if self.code is None else str(self.code),
            "why": self.why,
            "possible_from": format_optional_timestamp(self.possible_from),
            "unblocked_by": self.unblocked_by,
        }
        if self.removal_id is not None:
            option["removal_id"] = self.removal_id
        if self.action == "orders.set_status":
            option["values"] = list(self.values)
        return option


PolicyAnswer = Granted | Refused | Invalid | Removal
PolicyCheck = Callable[[Subject, Actor, datetime], PolicyAnswer]

ACTIONS: dict[str, PolicyCheck] = {
    "ocr.file": lambda o, by, now: ocr.file(o.case, by, example_reason(o.case.role_of(by)), EXAMPLE_COMMENT, now),
    "ocr.decline": lambda o, by, now: ocr.decline(o.case, by, now),
    "ocr.withdraw": lambda o, by, now: ocr.withdraw(o.case, by, now),
    "npb.file": lambda o, by, now: npb.file(o.case, by, EXAMPLE_COMMENT, now),
    "npb.respond": lambda o, by, now: npb.respond(o.case, by, EXAMPLE_COMMENT, now),
    "npb.accept_penalty": lambda o, by, now: npb.accept_penalty(o.case, by, now),
    "npb.take_back": lambda o, by, now: npb.take_back(o.case, by, now),
    "npb.remove": lambda o, by, now: alerts.remove(o.case, AlertKind.NPB, by, EXAMPLE_COMMENT, now),
    "nrs.file": lambda o, by, now: seller_alerts.file(o.case, AlertKind.NRS, by, None, EXAMPLE_COMMENT, now),
    "nrs.respond": lambda o, by, now: seller_alerts.respond(o.case, AlertKind.NRS, by, EXAMPLE_COMMENT, now),
    "nrs.remove": lambda o, by, now: alerts.remove(o.case, AlertKind.NRS, by, EXAMPLE_COMMENT, now),
    "nss.file": lambda o, by, now: seller_alerts.file(o.case, AlertKind.NSS, by, EXAMPLE_GROUNDS, EXAMPLE_COMMENT, now),
    "nss.respond": lambda o, by, now: seller_alerts.respond(o.case, AlertKind.NSS, by, EXAMPLE_COMMENT, now),
    "nss.remove": lambda o, by, now: alerts.remove(o.case, AlertKind.NSS, by, EXAMPLE_COMMENT, now),
    "orders.cancel": lambda o, by, now: cancellation.cancel(o.case, by, None, EXAMPLE_COMMENT, now),
    "drafts.open": lambda o, by, now: drafts.check_may_open(o.case, by, now) or Granted(o.case),
    "removals.request": lambda o, by, now: removals.request(
        o.case, by, first_unit(o.remaining), None, o.remaining, now
    ),
    "orders.settle_late_payment": lambda o, by, now: late_payments.settle(o.case, by, EXAMPLE_COMMENT, now),
}


def list_options(order: Subject, actor: Actor, now: datetime) -> list[Option]:
    result = [_option(action, ask(order, actor, now), order, actor, now) for action, ask in ACTIONS.items()]
    result.append(_status_option(order.case, actor))
    for removal in order.pending_removals:
        decided: dict[str, PolicyAnswer] = {
            "removals.approve": removals.approve(order.case, removal, actor, None, order.remaining, now),
            "removals.deny": removals.deny(order.case, removal, actor, now),
            "removals.withdraw": removals.withdraw(order.case, removal, actor, now),
        }
        result.extend(
            _option(action, answer, order, actor, now, removal_id=removal.removal_id)
            for action, answer in decided.items()
        )
    return result


def example_arguments(action: str, case: Case, actor: Actor, remaining: Mapping[int, int]) -> dict[str, Any]:
    if action == "ocr.file":
        return {"reason": example_reason(case.role_of(actor)), "comment": EXAMPLE_COMMENT}
    if action == "nss.file":
        return {"grounds": EXAMPLE_GROUNDS, "comment": EXAMPLE_COMMENT}
    if action == "drafts.open":
        return {"consolidate": True, "values": {}}
    if action == "removals.request":
        return {"lines": [{"line_no": line_no, "quantity": quantity} for line_no, quantity in first_unit(remaining)]}
    if action in ("ocr.decline", "ocr.withdraw", "npb.accept_penalty", "npb.take_back"):
        return {}
    return {"comment": EXAMPLE_COMMENT}


def example_reason(role: Role | None) -> str:
    return "S_MUTUAL" if role is Role.SELLER else "B_MUTUAL"


def first_unit(remaining: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((line_no, 1) for line_no in sorted(remaining) if remaining[line_no] > 0)[:1]


def describe_cancellability(order: Subject, now: datetime) -> str:
    case = order.case
    if case.order.status is Status.CANCELLED:
        basis = cancellation.LABELS[case.order.basis] if case.order.basis else "an unknown ground"
        late = case.open_late_payment
        paid = (
            f" A payment is {late.payment_status} since {describe_timestamp(late.recorded_at)}, "
            "after the cancellation; the seller has to send the money back."
            if late
            else ""
        )
        return f"{case.label.capitalize()} is cancelled, on the ground of {basis}. That is final.{paid}"
    sentences = []
    for role in (Role.SELLER, Role.BUYER):
        answer = cancellation.basis_for(case, Actor(case.member(role).member_id), now)
        if not isinstance(answer, Refused):
            sentences.append(f"The {role} can cancel {case.label} now, on the ground of {cancellation.LABELS[answer]}.")
        elif answer.possible_from is not None:
            sentences.append(
                f"The {role} cannot cancel yet. {answer.message} What would change it: {answer.unblocked_by}."
            )
        elif answer.unblocked_by:
            sentences.append(f"The {role} cannot cancel. {answer.message} What would change it: {answer.unblocked_by}.")
        else:
            sentences.append(f"The {role} cannot cancel. {answer.message}")
    return " ".join(sentences)


def _option(
    action: str, answer: PolicyAnswer, order: Subject, actor: Actor, now: datetime, *, removal_id: int | None = None
) -> Option:
    if isinstance(answer, Refused):
        return Option(
            action, False, answer.message, answer.code, answer.possible_from, answer.unblocked_by, removal_id=removal_id
        )
    if isinstance(answer, Invalid):  # fewer units remain than were requested
        return Option(action, False, f"{answer.path} {answer.message}.", removal_id=removal_id)
    return Option(action, True, _why_possible(action, order.case, actor, now), removal_id=removal_id)


def _why_possible(action: str, case: Case, actor: Actor, now: datetime) -> str:
    if action == "orders.cancel":
        basis = cancellation.basis_for(case, actor, now)
        if not isinstance(basis, Refused):
            return f"Possible now, on the ground of {cancellation.LABELS[basis]}."
    return "Possible now."


def _status_option(case: Case, actor: Actor) -> Option:
    statuses = orders.BY_SELLER if case.role_of(actor) is Role.SELLER else tuple(orders.BY_BUYER)
    answers = {status: orders.set_status(case, actor, status) for status in statuses}
    settable = tuple(str(status) for status, answer in answers.items() if isinstance(answer, Granted))
    if settable:
        return Option("orders.set_status", True, f"Can be set to {', '.join(settable)}.", values=settable)
    refused = [answer for answer in answers.values() if isinstance(answer, Refused)][-1]
    return Option(
        "orders.set_status", False, refused.message, refused.code, refused.possible_from, refused.unblocked_by
    )
