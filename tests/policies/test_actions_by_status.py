"""A table of every action in every status for every role, written from the rules and not from the program.

For each action it has the statuses in which each role can take it, and the code of the refusal elsewhere.  Everything
that is not listed as possible is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from policies import alerts, cancellation, npb, ocr, orders, removals, seller_alerts
from policies.cases import Actor, AlertKind, Case
from policies.statuses import ADDABLE_STATUSES, OPEN_FLOW, PaymentStatus, Status
from tests.builders import BUYER, DAY, ORDERED, SELLER, STAFF, STRANGER, a_case, code, granted

FILED = ORDERED + 7 * DAY
SOON, LATE = FILED + DAY, FILED + 14 * DAY


def _paid() -> Case:
    return a_case(Status.SHIPPED, payment=PaymentStatus.RECEIVED)


def _npb() -> Case:
    return granted(npb.file_npb(a_case(), SELLER, None, FILED))


def _request(actor: Actor, reason: str) -> Case:
    return granted(ocr.file_ocr(a_case(Status.READY), actor, reason, "please", FILED))


OPEN = tuple(str(status) for status in OPEN_FLOW)
CASES: dict[str, Case] = {
    **{str(status): a_case(status) for status in OPEN_FLOW},
    "OCR by buyer": _request(BUYER, "B_MUTUAL"),
    "OCR by seller": _request(SELLER, "S_MUTUAL"),
    "NPB": _npb(),
    "NPX": granted(npb.accept_penalty(_npb(), BUYER, FILED)),
    "NRS": granted(seller_alerts.file_seller_alert(a_case(), AlertKind.NRS, BUYER, None, "silent", FILED)),
    "NSS": granted(seller_alerts.file_seller_alert(_paid(), AlertKind.NSS, BUYER, "NOT_SHIPPED", "nothing", FILED)),
    "CANCELLED": granted(cancellation.cancel(_request(SELLER, "S_MUTUAL"), SELLER, None, None, FILED)),
}
REQUESTS = ("OCR by buyer", "OCR by seller")
NON_PAYING = ("NPB", "NPX")
AGAINST_SELLER = ("NRS", "NSS")
ALERTS = (*NON_PAYING, *AGAINST_SELLER)
PROBLEMS = (*REQUESTS, *ALERTS)
FILEABLE = ("PENDING", "UPDATED", "PROCESSING", "READY", "PACKED")

Press = Callable[[Case, Actor, datetime], object]
BUTTONS: dict[str, Press] = {
    "ocr.file": lambda c, by, now: ocr.file_ocr(c, by, "S_MUTUAL" if by is SELLER else "B_MUTUAL", "please", now),
    "ocr.decline": ocr.decline_ocr,
    "ocr.withdraw": ocr.withdraw_ocr,
    "npb.file": lambda c, by, now: npb.file_npb(c, by, None, now),
    "npb.respond": lambda c, by, now: npb.respond_to_npb(c, by, "soon", now),
    "npb.accept_penalty": npb.accept_penalty,
    "npb.take_back": npb.take_back,
    "npb.remove": lambda c, by, now: alerts.remove_alert(c, AlertKind.NPB, by, None, now),
    "nrs.file": lambda c, by, now: seller_alerts.file_seller_alert(c, AlertKind.NRS, by, None, "silent", now),
    "nrs.respond": lambda c, by, now: seller_alerts.respond_to_seller_alert(c, AlertKind.NRS, by, "here", now),
    "nrs.remove": lambda c, by, now: alerts.remove_alert(c, AlertKind.NRS, by, None, now),
    "nss.file": lambda c, by, now: seller_alerts.file_seller_alert(c, AlertKind.NSS, by, "INCOMPLETE", "half", now),
    "nss.respond": lambda c, by, now: seller_alerts.respond_to_seller_alert(c, AlertKind.NSS, by, "here", now),
    "nss.remove": lambda c, by, now: alerts.remove_alert(c, AlertKind.NSS, by, None, now),
    "orders.cancel": lambda c, by, now: cancellation.cancel(c, by, None, None, now),
    "removals.request": lambda c, by, now: removals.request_removal(c, by, ((1, 1),), None, {1: 5}, now),
}

# action -> role -> code -> the statuses with that answer. Key None: granted. A missing role always gets WRONG_ROLE.
ANSWERS: dict[str, dict[str, dict[str | None, tuple[str, ...]]]] = {
    "ocr.file": {
        role: {
            None: FILEABLE,
            "WRONG_STATUS": tuple(status for status in OPEN if status not in FILEABLE),
            "ORDER_HAS_PROBLEM": PROBLEMS,
        }
        for role in ("buyer", "seller")
    },
    "ocr.decline": {
        "seller": {None: ("OCR by buyer",), "WRONG_ROLE": ("OCR by seller",), "NO_OPEN_REQUEST": (*OPEN, *ALERTS)}
    },
    "ocr.withdraw": {
        "buyer": {None: ("OCR by buyer",), "WRONG_ROLE": ("OCR by seller",), "NO_OPEN_REQUEST": (*OPEN, *ALERTS)},
        "seller": {None: ("OCR by seller",), "WRONG_ROLE": ("OCR by buyer",), "NO_OPEN_REQUEST": (*OPEN, *ALERTS)},
    },
    "npb.file": {"seller": {None: (*OPEN, *REQUESTS), "ORDER_HAS_PROBLEM": ALERTS}},
    "npb.respond": {
        "buyer": {
            None: ("NPB",),
            "WRONG_STATUS": ("NPX",),
            "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *AGAINST_SELLER),
        }
    },
    "npb.accept_penalty": {
        "buyer": {
            None: ("NPB",),
            "WRONG_STATUS": ("NPX",),
            "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *AGAINST_SELLER),
        }
    },
    "npb.take_back": {
        "buyer": {
            None: ("NPX",),
            "WRONG_STATUS": ("NPB",),
            "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *AGAINST_SELLER),
        }
    },
    "npb.remove": {
        role: {None: NON_PAYING, "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *AGAINST_SELLER)} for role in ("seller", "staff")
    },
    "nrs.file": {"buyer": {None: (*OPEN, *REQUESTS), "ORDER_HAS_PROBLEM": ALERTS}},
    "nrs.respond": {"seller": {None: ("NRS",), "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *NON_PAYING, "NSS")}},
    "nrs.remove": {
        role: {None: ("NRS",), "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *NON_PAYING, "NSS")} for role in ("buyer", "staff")
    },
    "nss.file": {"buyer": {"NOT_PAID": (*OPEN, *REQUESTS), "ORDER_HAS_PROBLEM": ALERTS}},
    "nss.respond": {"seller": {None: ("NSS",), "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *NON_PAYING, "NRS")}},
    "nss.remove": {
        role: {None: ("NSS",), "NO_OPEN_ALERT": (*OPEN, *REQUESTS, *NON_PAYING, "NRS")} for role in ("buyer", "staff")
    },
    "orders.cancel": {
        "seller": {
            None: (*REQUESTS, "NPX"),
            "TOO_EARLY": ("NPB",),
            "WRONG_ROLE": AGAINST_SELLER,
            "NO_OPEN_REQUEST": OPEN,
        },
        "buyer": {"TOO_EARLY": AGAINST_SELLER, "WRONG_ROLE": (*REQUESTS, *NON_PAYING), "NO_OPEN_ALERT": OPEN},
    },
    "removals.request": {role: {None: OPEN, "ORDER_HAS_PROBLEM": PROBLEMS} for role in ("buyer", "seller")},
}
ROLES = {"buyer": BUYER, "seller": SELLER, "staff": STAFF, "stranger": STRANGER}


def _expected(button: str, role: str, status: str) -> str | None:
    if role == "stranger":
        return "NOT_A_PARTY"
    if status == "CANCELLED":
        return "ALREADY_CANCELLED"
    expected_codes = ANSWERS[button].get(role, {"WRONG_ROLE": (*OPEN, *PROBLEMS)})
    (answer,) = [answer for answer, statuses in expected_codes.items() if status in statuses]
    return answer


@pytest.mark.parametrize("button", BUTTONS)
@pytest.mark.parametrize("role", ROLES)
def test_every_action_in_every_status(button: str, role: str) -> None:
    """T1 to T17, T22, R2, R13, R18, R21, R24, R31, R33, R38, R46, R50, R52, R56: everything else is refused."""
    codes = {status: code(BUTTONS[button](case, ROLES[role], SOON)) for status, case in CASES.items()}
    assert codes == {status: _expected(button, role, status) for status in CASES}


@pytest.mark.parametrize("status", CASES)
def test_actions_that_become_possible_with_time(status: str) -> None:
    """T13, T17: fourteen days after the filing NPB opens for the seller and NRS and NSS for the buyer, nothing else."""
    for role, opened in (("seller", ("NPB",)), ("buyer", AGAINST_SELLER), ("staff", ()), ("stranger", ())):
        expected = None if status in opened else _expected("orders.cancel", role, status)
        assert code(BUTTONS["orders.cancel"](CASES[status], ROLES[role], LATE)) == expected


@pytest.mark.parametrize("status", [status for status in CASES if status != "CANCELLED"])
def test_terminated_accounts_allow_cancelling_in_every_open_status(status: str) -> None:
    """T18, T19, R53, R54: for the other party, at once, in any status that is not final."""
    case = CASES[status]
    without_buyer = replace(case, buyer=replace(case.buyer, terminated=True))
    assert code(cancellation.cancel(without_buyer, SELLER, None, None, SOON)) is None
    without_seller = replace(case, seller=replace(case.seller, terminated=True))
    assert code(cancellation.cancel(without_seller, BUYER, None, None, SOON)) is None


@pytest.mark.parametrize("status", CASES)
def test_terminated_account_cannot_cancel_its_own_orders(status: str) -> None:
    """R53, R54: the ground is the other party's; one's own closed account opens nothing."""
    case = CASES[status]
    for role in ("buyer", "seller"):
        terminated_self = replace(case, **{role: replace(getattr(case, role), terminated=True)})
        assert code(cancellation.cancel(terminated_self, ROLES[role], None, None, SOON)) == _expected(
            "orders.cancel", role, status
        )


@pytest.mark.parametrize("status", CASES)
def test_statuses_in_which_a_batch_can_be_added(status: str) -> None:
    """T21, A11: only where the order is still being put together."""
    expected = (
        None
        if status in [str(status_) for status_ in ADDABLE_STATUSES]
        else "WRONG_STATUS"
        if status in OPEN
        else "ALREADY_CANCELLED"
        if status == "CANCELLED"
        else "ORDER_HAS_PROBLEM"
    )
    assert code(orders.check_may_add_batch(CASES[status])) == expected


@pytest.mark.parametrize("status", CASES)
@pytest.mark.parametrize("payment", [PaymentStatus.NONE, PaymentStatus.PENDING, PaymentStatus.SENT])
def test_voided_payment_changes_only_a_paid_order(status: str, payment: PaymentStatus) -> None:
    """T23, R108: PAID becomes READY; in every other status only the payment status changes."""
    case = CASES[status]
    before = replace(case, order=replace(case.order, payment_status=PaymentStatus.RECEIVED))
    verdict = orders.record_order_payment(before, payment, SOON)
    if status == "CANCELLED":  # a claim after the cancellation is a late payment (R107)
        assert code(verdict) == ("ALREADY_CANCELLED" if payment is PaymentStatus.NONE else None)
        return
    after = granted(verdict).order
    assert after.payment_status is payment
    assert after.status is (Status.READY if status == "PAID" else case.order.status)
    assert after.order_date == case.order.order_date
