"""Tests of who can cancel, on what ground, and what follows (R53 to R65, R95 to R97)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import cancellation, members, npb, ocr
from policies.cases import AlertState, Member
from policies.statuses import OPEN_FLOW, STRIKE_RECIPIENTS, CancelBasis, Role, Status
from policies.terms import DEFAULT_TERMS
from tests.builders import BUYER, DAY, ORDERED, SELLER, a_case, code, granted, with_member

FILED = ORDERED + 7 * DAY


@pytest.mark.parametrize("status", OPEN_FLOW)
def test_seller_cancels_at_once_when_the_buyer_is_terminated(status: Status) -> None:
    """R53, A15: no alert needed, in any open status."""
    case = with_member(a_case(status), buyer_terminated=True)
    assert granted(cancellation.cancel(case, SELLER, None, None, ORDERED)).order.basis is CancelBasis.BUYER_TERMINATED


@pytest.mark.parametrize("status", OPEN_FLOW)
def test_buyer_cancels_at_once_when_the_seller_is_terminated(status: Status) -> None:
    """R54."""
    case = with_member(a_case(status), seller_terminated=True)
    assert granted(cancellation.cancel(case, BUYER, None, None, ORDERED)).order.basis is CancelBasis.SELLER_TERMINATED


def test_terminated_member_cannot_cancel_because_of_it() -> None:
    """R53, R54: it is the other party's right."""
    case = with_member(a_case(), buyer_terminated=True)
    assert code(cancellation.cancel(case, BUYER, None, None, ORDERED)) == "NO_OPEN_ALERT"


def test_revoked_privileges_do_not_allow_cancelling() -> None:
    """R55, A16."""
    case = a_case()
    case = replace(case, buyer=replace(case.buyer, can_buy=False), seller=replace(case.seller, can_sell=False))
    assert code(cancellation.cancel(case, SELLER, None, None, ORDERED)) == "NO_OPEN_REQUEST"
    assert code(cancellation.cancel(case, BUYER, None, None, ORDERED)) == "NO_OPEN_ALERT"


def test_cancellation_grounds_have_a_fixed_precedence() -> None:
    without_buyer = with_member(a_case(), buyer_terminated=True)
    requested = granted(ocr.file_ocr(without_buyer, SELLER, "S_BUYER_UNREGISTERED", "gone", ORDERED))
    assert cancellation.cancel_basis_for(requested, SELLER, ORDERED) == "OCR_SELLER"
    waiting = granted(npb.file_npb(without_buyer, SELLER, None, FILED))
    assert cancellation.cancel_basis_for(waiting, SELLER, FILED) == "BUYER_TERMINATED"
    assert cancellation.cancel_basis_for(waiting, SELLER, FILED + 7 * DAY) == "NPB"
    accepted = granted(npb.accept_penalty(waiting, BUYER, FILED))
    assert cancellation.cancel_basis_for(accepted, SELLER, FILED + 7 * DAY) == "NPX"


def test_open_alert_is_superseded_when_cancelled_on_another_ground() -> None:
    case = granted(npb.file_npb(with_member(a_case(), buyer_terminated=True), SELLER, None, FILED))
    cancelled = granted(cancellation.cancel(case, SELLER, None, None, FILED))
    assert cancelled.alert is not None
    assert cancelled.alert.state is AlertState.SUPERSEDED
    assert STRIKE_RECIPIENTS.get(CancelBasis.BUYER_TERMINATED) is None


def test_cancelled_is_final() -> None:
    """R56, R57, T22: a second cancel is refused for every actor."""
    case = granted(cancellation.cancel(with_member(a_case(), buyer_terminated=True), SELLER, None, None, ORDERED))
    for actor in (SELLER, BUYER):
        assert code(cancellation.cancel(case, actor, None, None, ORDERED + DAY)) == "ALREADY_CANCELLED"


def test_cancelled_order_records_ground_actor_and_time() -> None:
    """R61."""
    case = granted(cancellation.cancel(with_member(a_case(), buyer_terminated=True), SELLER, None, None, ORDERED))
    assert (case.order.basis, case.order.cancelled_by, case.order.cancelled_at) == (
        CancelBasis.BUYER_TERMINATED,
        "seller",
        ORDERED,
    )


def test_cancel_validates_its_reason() -> None:
    case = granted(ocr.file_ocr(a_case(), SELLER, "S_MUTUAL", "x", ORDERED))
    assert code(cancellation.cancel(case, SELLER, "B_MUTUAL", "x", ORDERED)) == "REASON_OF_OTHER_PARTY"
    assert code(cancellation.cancel(case, SELLER, "S_NOT_PAID", " ", ORDERED)) == "COMMENT_REQUIRED"
    assert code(cancellation.cancel(case, SELLER, "S_NOT_PAID", None, ORDERED)) is None


@pytest.mark.parametrize("basis", list(CancelBasis))
@pytest.mark.parametrize("seller_terminated", [False, True])
def test_which_grounds_return_items(basis: CancelBasis, seller_terminated: bool) -> None:
    """R63, R64, R65: everything but NRS, NSS and a terminated seller, whatever the basis."""
    expected = basis not in (CancelBasis.NRS, CancelBasis.NSS) and not seller_terminated
    assert cancellation.returns_items(basis, seller_terminated=seller_terminated) is expected


@pytest.mark.parametrize(
    ("basis", "role"),
    [
        (CancelBasis.NPB, Role.BUYER),
        (CancelBasis.NPX, Role.BUYER),
        (CancelBasis.NRS, Role.SELLER),
        (CancelBasis.NSS, Role.SELLER),
    ],
)
def test_third_strike_revokes_the_privilege(basis: CancelBasis, role: Role) -> None:
    """R95, R96: each kind counts towards its own privilege."""
    assert STRIKE_RECIPIENTS.get(basis) is role
    member = Member("m")
    for order_id in (1, 2):
        member = members.add_strike(member, role, order_id, DEFAULT_TERMS)
        assert (member.can_buy, member.can_sell) == (True, True)
    member = members.add_strike(member, role, 3, DEFAULT_TERMS)
    assert (member.can_buy, member.can_sell) == (role is not Role.BUYER, role is not Role.SELLER)


def test_order_counts_as_one_strike() -> None:
    """R97."""
    member = Member("m")
    for _ in range(5):
        member = members.add_strike(member, Role.BUYER, 7, DEFAULT_TERMS)
    assert (member.strikes_as_buyer, member.can_buy) == ((7,), True)


def test_withdrawn_strike_restores_the_privilege() -> None:
    member = Member("m", strikes_as_buyer=(1, 2, 3), can_buy=False)
    member = members.remove_strike(member, Role.BUYER, 2, DEFAULT_TERMS)
    assert (member.strikes_as_buyer, member.can_buy) == ((1, 3), True)
