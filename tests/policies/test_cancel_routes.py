"""Tests that the routes to a cancellation lead there at their dates, over random histories and dated terms."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest

import tasks
from policies import cancellation, npb
from policies.cancel_routes import CANCEL_ROUTE_PARTIES, CancelRoute, describe_cancel_routes, list_cancel_routes
from policies.cases import Actor, Case
from policies.options import ACTIONS, Subject
from policies.statuses import CancelBasis, PaymentStatus, Role, Status
from policies.terms import DEFAULT_TERMS, Terms
from policies.verdicts import Granted
from tests.builders import BUYER, DAY, ORDERED, SECOND, SELLER, a_case, granted, with_member
from tests.random_cases import random_life

tasks.import_all()
LINES = {1: 10}
WEEK = 7 * DAY
TICK = timedelta(microseconds=1)


def routes_of(case: Case, now: datetime, *later_terms: tuple[datetime, Terms]) -> list[CancelRoute]:
    return list_cancel_routes(Subject(replace(case, later_terms=later_terms), LINES), now)


def actor_of(case: Case, role: Role) -> Actor:
    return Actor(case.member(role).member_id)


def cancels(case: Case, role: Role, at: datetime) -> CancelBasis | None:
    answer = cancellation.cancel(case, actor_of(case, role), None, None, at)
    return answer.case.order.basis if isinstance(answer, Granted) else None


def walk(case: Case, route: CancelRoute, later_terms: tuple[tuple[datetime, Terms], ...], now: datetime) -> None:
    """Take the steps of a route a microsecond before their times, when they are refused, and at them."""

    def ask(action: str, role: Role, at: datetime) -> object:
        terms = [terms for begin, terms in later_terms if begin <= at]
        subject = Subject(replace(case, terms=terms[-1] if terms else case.terms), LINES)
        return ACTIONS[action].ask(subject, actor_of(case, role), at)

    if route.filing is not None and route.file_from is not None:
        if route.file_from > now:
            assert not isinstance(ask(route.filing, route.role, route.file_from - TICK), Granted)
        filed = ask(route.filing, route.role, route.file_from)
        assert isinstance(filed, Granted), (route, filed)
        case = filed.case
    begin = route.file_from or now
    if route.cancel_from > begin:
        assert cancels(case, route.role, route.cancel_from - TICK) is None
    assert cancels(case, route.role, route.cancel_from) is route.basis
    if route.if_answered is not None:
        assert case.open_alert is not None
        role = Role.BUYER if route.role is Role.SELLER else Role.SELLER
        answered = ask(f"{case.open_alert.kind.lower()}.respond", role, begin)
        assert isinstance(answered, Granted), answered
        assert cancels(answered.case, route.role, route.if_answered - TICK) is None
        assert cancels(answered.case, route.role, route.if_answered) is route.basis


@pytest.mark.parametrize("seed", range(60))
def test_each_route_is_walked_and_no_other_filing_is_earlier(seed: int) -> None:
    random = Random(seed)
    for step in random_life(seed):
        case, now = step.before, step.now
        changes = sorted(now + timedelta(hours=random.randint(1, 500)) for _ in range(random.choice((0, 0, 1, 3))))
        later_terms = tuple(
            (at, replace(DEFAULT_TERMS, npb_file_after=random.randint(0, 20) * DAY, npb_unlock_response=21 * DAY))
            for at in changes
        )
        routes = routes_of(case, now, *later_terms)
        assert routes == sorted(routes, key=lambda route: route.cancel_from)
        for route in routes:
            walk(case, route, later_terms, now)
        for role in CANCEL_ROUTE_PARTIES:
            times = [route.cancel_from for route in routes if route.role is role]
            if cancels(case, role, now):
                assert times == [now]
            assert case.order.status is not Status.CANCELLED or not times


def test_new_unpaid_order_has_a_request_and_an_alert_for_the_seller_and_an_alert_for_the_buyer() -> None:
    """R14, R19, R26, R27, R45, R47."""
    own_request, alert, silent_seller = routes_of(a_case(), ORDERED + DAY)
    assert own_request == CancelRoute(
        Role.SELLER, CancelBasis.OCR_SELLER, ORDERED + DAY, filing="ocr.file", file_from=ORDERED + DAY
    )
    filed = ORDERED + WEEK
    assert alert == CancelRoute(Role.SELLER, CancelBasis.NPB, filed + WEEK, filed + 2 * WEEK, "npb.file", filed)
    assert silent_seller == CancelRoute(Role.BUYER, CancelBasis.NRS, filed + 2 * WEEK, None, "nrs.file", filed)
    assert alert.as_json() == {
        "role": "seller",
        "basis": "NPB",
        "steps": [
            {"action": "npb.file", "possible_from": "2026-04-04T10:00:00Z"},
            {"action": "orders.cancel", "possible_from": "2026-04-11T10:00:00Z"},
        ],
        "possible_from": "2026-04-11T10:00:00Z",
        "if_answered": "2026-04-18T10:00:00Z",
    }


def test_terms_that_come_into_force_later_shorten_and_lengthen_a_route() -> None:
    changed_at = ORDERED + 3 * DAY
    short, long = (replace(DEFAULT_TERMS, npb_file_after=days * DAY) for days in (2, 30))
    (alert,) = [r for r in routes_of(a_case(), ORDERED, (changed_at, short)) if r.basis is CancelBasis.NPB]
    assert alert.file_from == changed_at
    (alert,) = [r for r in routes_of(a_case(), ORDERED, (changed_at, long)) if r.basis is CancelBasis.NPB]
    assert alert.file_from == ORDERED + 30 * DAY


def test_open_alert_is_the_only_route_and_an_answer_moves_it_once() -> None:
    filed = granted(npb.file_npb(a_case(), SELLER, None, ORDERED + WEEK))
    (route,) = routes_of(filed, ORDERED + WEEK + DAY)
    assert route == CancelRoute(Role.SELLER, CancelBasis.NPB, ORDERED + 2 * WEEK, ORDERED + 3 * WEEK)
    answered = granted(npb.respond_to_npb(filed, BUYER, "on Friday", ORDERED + WEEK + DAY))
    (route,) = routes_of(answered, ORDERED + WEEK + 2 * DAY)
    assert route == CancelRoute(Role.SELLER, CancelBasis.NPB, ORDERED + 3 * WEEK)


@pytest.mark.guarantee("P7")
@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        (
            with_member(a_case(), buyer_terminated=True),
            "The seller can cancel order 1003 now, on the ground of the term",
        ),
        (
            a_case(Status.PAID, payment=PaymentStatus.RECEIVED),
            "The seller cannot cancel. Nothing is open on order 1003",
        ),
        (
            a_case(),
            (
                "The seller can file a cancel request now and cancel at once; or file a non-paying buyer alert from "
                "2026-04-04T10:00:00Z and cancel from 2026-04-11T10:00:00Z, or from 2026-04-18T10:00:00Z if the buyer "
                "answers. The buyer can ask the seller with a cancel request now; or file a non-responding seller "
                "alert from 2026-04-04T10:00:00Z and cancel from 2026-04-18T10:00:00Z."
            ),
        ),
        (
            granted(npb.file_npb(a_case(), SELLER, None, ORDERED + WEEK)),
            "order 1003 can be cancelled from 2026-04-11T10:00:00Z. If the buyer answers, from 2026-04-18T10:00:00Z.",
        ),
    ],
)
def test_cancellability_is_described_in_sentences(case: Case, sentence: str) -> None:
    """R53: the first sentence for support."""
    now = max(ORDERED + DAY, case.alert.filed_at + SECOND if case.alert else ORDERED)
    assert sentence in describe_cancel_routes(Subject(case, LINES), now)
