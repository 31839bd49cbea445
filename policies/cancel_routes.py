"""The ways a party can reach a cancellation through its own commands or by waiting, with their dates.

A route is the cancellation itself, or a request or alert to file first. Nothing is decided here: each step is put to
the policy of its command at the time of the step, under the terms that are in force then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from policies import cancellation
from policies.automation import list_announced_acts
from policies.cases import Actor, Case
from policies.options import ACTIONS, Subject
from policies.statuses import BASIS_LABELS, CancelBasis, Role, Status, counterparty
from policies.timestamps import describe_timestamp, format_optional_timestamp, format_timestamp
from policies.verdicts import Granted, Refused

CANCEL_ROUTE_PARTIES: Sequence[Role] = (Role.SELLER, Role.BUYER)


@dataclass(frozen=True, slots=True)
class CancelRoute:
    """How `role` can cancel from `cancel_from`: after `filing`, sent at `file_from`, or without one.

    `if_answered` is set if the other party can move that time by an answer to the alert.
    """

    role: Role
    basis: CancelBasis
    cancel_from: datetime
    if_answered: datetime | None = None
    filing: str | None = None
    file_from: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        steps = [] if self.file_from is None else [(self.filing, self.file_from)]
        steps.append(("orders.cancel", self.cancel_from))
        return {
            "role": self.role,
            "basis": self.basis,
            "steps": [{"action": action, "possible_from": format_timestamp(at)} for action, at in steps],
            "possible_from": format_timestamp(self.cancel_from),
            "if_answered": format_optional_timestamp(self.if_answered),
        }


def list_cancel_routes(order: Subject, now: datetime, role: Role | None = None) -> list[CancelRoute]:
    parties = [party for party in CANCEL_ROUTE_PARTIES if role is party or role not in CANCEL_ROUTE_PARTIES]
    routes = [route for party in parties for route in _find_routes(order, party, now)]
    return sorted(routes, key=lambda route: route.cancel_from)


def describe_cancel_routes(order: Subject, now: datetime) -> str:
    case = order.case
    if case.order.status is Status.CANCELLED:
        basis = BASIS_LABELS[case.order.basis] if case.order.basis else "an unknown ground"
        late = case.open_late_payment
        paid = (
            f" A payment is {late.payment_status} since {describe_timestamp(late.recorded_at)}, "
            "after the cancellation; the seller has to send the money back."
            if late
            else ""
        )
        return f"{case.label.capitalize()} is cancelled, on the ground of {basis}. That is final.{paid}"
    parties = [_describe_cancel_routes_of(order, role, now) for role in CANCEL_ROUTE_PARTIES]
    return " ".join([*parties, *(announcement.sentence for announcement in list_announced_acts(case))])


def _find_routes(order: Subject, role: Role, now: datetime) -> list[CancelRoute]:
    if direct := _cancel_route_of(order, order.case, role, now):
        return [direct]
    routes = []
    for filing in (name for name in ACTIONS if name.endswith(".file")):
        if (granted := _earliest_grant_of_filing(order, filing, role, now)) is not None:
            file_from, filed = granted
            if route := _cancel_route_of(order, filed, role, file_from):
                routes.append(replace(route, filing=filing, file_from=file_from))
    return routes


def _earliest_grant_of_filing(order: Subject, action: str, role: Role, now: datetime) -> tuple[datetime, Case] | None:
    periods = [(now, order.case.terms), *order.case.later_terms]
    ends = [begin for begin, _ in order.case.later_terms]
    for (begin, terms), end in zip(periods, [*ends, None], strict=True):
        case = replace(order.case, terms=terms)
        at, answer = begin, _try_action_on_route(order, case, action, role, begin)
        if isinstance(answer, Refused) and answer.possible_from and (end is None or answer.possible_from < end):
            at, answer = answer.possible_from, _try_action_on_route(order, case, action, role, answer.possible_from)
        if isinstance(answer, Granted):
            return at, answer.case
    return None


def _cancel_route_of(order: Subject, case: Case, role: Role, at: datetime) -> CancelRoute | None:
    ground = _earliest_basis_on_route(case, role, at)
    if ground is None:
        return None
    cancel_from, basis = ground
    if_answered = None
    if case.open_alert is not None:
        answer = _try_action_on_route(order, case, f"{case.open_alert.kind.lower()}.respond", counterparty(role), at)
        later = _earliest_basis_on_route(answer.case, role, at) if isinstance(answer, Granted) else None
        if later is not None and later[0] != cancel_from:
            if_answered = later[0]
    return CancelRoute(role, basis, cancel_from, if_answered)


def _earliest_basis_on_route(case: Case, role: Role, at: datetime) -> tuple[datetime, CancelBasis] | None:
    actor = Actor(case.member(role).member_id)
    answer = cancellation.cancel_basis_for(case, actor, at)
    if isinstance(answer, Refused):
        if answer.possible_from is None:
            return None
        at = answer.possible_from
        answer = cancellation.cancel_basis_for(case, actor, at)
    return None if isinstance(answer, Refused) else (at, answer)


def _try_action_on_route(order: Subject, case: Case, action: str, role: Role, at: datetime) -> Any:
    return ACTIONS[action].ask(replace(order, case=case), Actor(case.member(role).member_id), at)


def _describe_cancel_routes_of(order: Subject, role: Role, now: datetime) -> str:
    case = order.case
    answer = cancellation.cancel_basis_for(case, Actor(case.member(role).member_id), now)
    if not isinstance(answer, Refused):
        warning = cancellation.warn_of_payment(case, answer)
        can = f"The {role} can cancel {case.label} now, on the ground of {BASIS_LABELS[answer]}."
        return f"{can} {warning}".rstrip()
    routes = list_cancel_routes(order, now, role)
    if answer.possible_from is None and routes:
        ways = [_describe_cancel_route(route, now) for route in routes]
        if role is Role.BUYER and isinstance(_try_action_on_route(order, case, "ocr.file", role, now), Granted):
            ways.insert(0, "ask the seller with a cancel request now")
        return f"The {role} can {'; or '.join(ways)}."
    yet = " yet" if answer.possible_from else ""
    moved_to = routes[0].if_answered if routes else None
    later = f" If the {counterparty(role)} answers, from {describe_timestamp(moved_to)}." if moved_to else ""
    unblocked = f" What would change it: {answer.unblocked_by}." if answer.unblocked_by else ""
    return f"The {role} cannot cancel{yet}. {answer.message}{later}{unblocked}"


def _describe_cancel_route(route: CancelRoute, now: datetime) -> str:
    assert route.filing is not None
    assert route.file_from is not None
    file = "now" if route.file_from <= now else f"from {describe_timestamp(route.file_from)}"
    cancel = "at once" if route.cancel_from == route.file_from else f"from {describe_timestamp(route.cancel_from)}"
    text = f"{ACTIONS[route.filing].label} {file} and cancel {cancel}"
    if route.if_answered is None:
        return text
    return f"{text}, or from {describe_timestamp(route.if_answered)} if the {counterparty(route.role)} answers"
