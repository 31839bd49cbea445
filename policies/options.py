"""The actions an actor can take on an order now; for the rest, why not and when they become available.

Nothing is decided here: each declared command is put to its policy with unobjectionable arguments, so that the option
says what the command would answer. Pending removal requests have options of their own, and `orders.set_status` lists
the statuses that can be set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from policies import cancellation, orders
from policies.cases import Actor, Case
from policies.removals import Removal
from policies.statuses import BASIS_LABELS, Role
from policies.timestamps import format_optional_timestamp
from policies.verdicts import Code, Granted, Invalid, Refused, Verdict

OPTION_EXAMPLE_COMMENT = "Said on the Problem Order page."


@dataclass(frozen=True, slots=True)
class Subject:
    case: Case
    remaining: Mapping[int, int] = field(default_factory=dict)
    pending_removals: Sequence[Removal] = ()
    removal: Removal | None = None
    """The removal request that the option is about."""


@dataclass(frozen=True, slots=True)
class Option:
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


Ask = Callable[[Subject, Actor, datetime], Verdict | Option]


@dataclass(frozen=True, slots=True)
class Action:
    """A command listed as an option. `label` completes "can …" and "cannot …"."""

    label: str
    ask: Ask
    per_removal: bool
    """Whether it is listed once per pending removal request."""


ACTIONS: dict[str, Action] = {}
"""The commands that are options, by task name; `tasks.declarations` enters each."""
_OPTION_ORDER = (
    "ocr",
    "npb",
    "nrs",
    "nss",
    "orders.cancel",
    "drafts",
    "removals",
    "orders.settle_late_payment",
    "orders.set_status",
)
"""Names, or the part before the dot, in the order in which options are listed; others follow."""


def list_options(order: Subject, actor: Actor, now: datetime) -> list[Option]:
    listed = sorted(ACTIONS.items(), key=lambda item: _option_position(item[0]))
    candidates = [(name, action, order) for name, action in listed if not action.per_removal]
    for removal in order.pending_removals:
        about = replace(order, removal=removal)
        candidates += [(name, action, about) for name, action in listed if action.per_removal]
    return [to_option(name, action.ask(subject, actor, now), subject.removal) for name, action, subject in candidates]


def _option_position(action: str) -> int:
    return next(
        (i for i, name in enumerate(_OPTION_ORDER) if action == name or action.startswith(f"{name}.")),
        len(_OPTION_ORDER),
    )


def to_option(action: str, answer: Verdict | Option, removal: Removal | None = None) -> Option:
    removal_id = None if removal is None else removal.removal_id
    if isinstance(answer, Option):
        return answer
    if isinstance(answer, Refused):
        return Option(
            action, False, answer.sentence, answer.code, answer.possible_from, answer.unblocked_by, removal_id
        )
    if isinstance(answer, Invalid):  # fewer units remain than were requested
        return Option(action, False, f"{answer.path} {answer.message}.", removal_id=removal_id)
    return Option(action, True, "Possible now.", removal_id=removal_id)


def option_to_cancel(action: str, case: Case, actor: Actor, now: datetime) -> Option:
    option = to_option(action, cancellation.cancel(case, actor, None, OPTION_EXAMPLE_COMMENT, now))
    basis = cancellation.cancel_basis_for(case, actor, now)
    if option.possible and not isinstance(basis, Refused):
        warning = cancellation.warn_of_payment(case, basis)
        return replace(option, why=f"Possible now, on the ground of {BASIS_LABELS[basis]}. {warning}".rstrip())
    return option


def option_to_set_status(action: str, case: Case, actor: Actor) -> Option:
    statuses = orders.STATUSES_BY_SELLER if case.role_of(actor) is Role.SELLER else tuple(orders.STATUSES_BY_BUYER)
    answers = {status: orders.set_order_status(case, actor, status) for status in statuses}
    settable = tuple(str(status) for status, answer in answers.items() if isinstance(answer, Granted))
    if settable:
        return Option(action, True, f"Can be set to {', '.join(settable)}.", values=settable)
    return to_option(action, [answer for answer in answers.values() if isinstance(answer, Refused)][-1])
