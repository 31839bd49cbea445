"""Tests of resets and credits of fees (R83 to R89, R93)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from policies.bills import may_be_billed, parse_month
from policies.cases import Order
from policies.credits import (
    FeeSettlement,
    check_manual_credit,
    choose_credit_bill,
    decide_fee,
    decide_fee_settlement,
    fee_credit_effects,
    fee_credit_message,
    settlement_note,
)
from policies.statuses import CancelBasis, PaymentStatus, Status
from policies.terms import DEFAULT_TERMS
from policies.timestamps import parse_timestamp
from policies.verdicts import Invalid
from tests.builders import boundary_instants

ORDERED = datetime(2026, 3, 28, 10, tzinfo=UTC)


def order(fee: str = "20.00", month: str | None = "2026-03") -> Order:
    charged = parse_month(month) if month else None
    return Order(
        1003, "b", "s", Status.NPB, PaymentStatus.NONE, ORDERED, fee=Decimal(fee), fee_month=charged, version=3
    )


GOLDEN = [
    # basis, charged month, cancelled at, kind, bill
    ("OCR_SELLER", "2026-03", "2026-03-31T23:00:00Z", "reset", "2026-03"),  # E1
    ("OCR_BUYER", "2026-03", "2026-04-01T03:59:59.999999Z", "reset", "2026-03"),  # Still March in New York
    ("OCR_BUYER", "2026-03", "2026-04-01T04:00:00Z", "credit", "2026-04"),
    ("OCR_SELLER", "2026-03", "2026-04-01T04:30:00Z", "credit", "2026-04"),  # E9
    ("OCR_SELLER", "2026-03", "2026-04-02T12:00:00Z", "credit", "2026-04"),  # E3: before the bill is made
    ("NPB", "2026-03", "2026-04-12T10:00:00Z", "credit", "2026-04"),  # E2
    ("NPX", "2026-03", "2026-04-12T10:00:00Z", "credit", "2026-04"),
    ("NPB", "2026-04", "2026-04-20T10:00:00Z", "reset", "2026-04"),  # E7: charged again by a batch
    ("BUYER_TERMINATED", "2026-03", "2026-03-30T10:00:00Z", "reset", "2026-03"),
    ("BUYER_TERMINATED", "2026-03", "2026-05-30T10:00:00Z", "credit", "2026-05"),
    ("SELLER_TERMINATED", "2026-03", "2026-03-30T10:00:00Z", "reset", "2026-03"),
    ("SELLER_TERMINATED", "2026-03", "2026-04-30T10:00:00Z", "credit", "2026-04"),
    ("OCR_SELLER", "2026-12", "2027-01-02T12:00:00Z", "credit", "2027-01"),  # E10
    ("OCR_SELLER", "2026-12", "2027-01-01T04:59:59Z", "reset", "2026-12"),
    ("OCR_SELLER", "2025-03", "2026-03-15T00:00:00Z", "credit", "2026-03"),  # the same month of another year
    ("NRS", "2026-03", "2026-03-30T10:00:00Z", "none", None),  # R85
    ("NRS", "2026-03", "2026-04-30T10:00:00Z", "none", None),
    ("NSS", "2026-03", "2026-03-30T10:00:00Z", "none", None),
    ("NSS", "2026-02", "2026-03-06T10:00:00Z", "none", None),  # E4
]


@pytest.mark.parametrize(("basis", "charged", "at", "kind", "bill"), GOLDEN)
def test_reset_or_credit_depends_on_the_months_of_charge_and_cancellation(
    basis: str, charged: str, at: str, kind: str, bill: str | None
) -> None:
    decision = decide_fee(order(month=charged), CancelBasis(basis), parse_timestamp(at), DEFAULT_TERMS)
    amount = "0.00" if kind == "none" else "-20.00"
    assert fee_credit_effects(decision) == {"kind": kind, "amount": amount, "bill": bill}


@pytest.mark.parametrize(
    ("charged", "first_open", "kind", "bill"),
    [
        ("2026-03", None, "reset", "2026-03"),
        ("2026-03", "2026-02", "reset", "2026-03"),
        ("2026-03", "2026-03", "reset", "2026-03"),
        ("2026-03", "2026-04", "credit", "2026-04"),
        ("2026-02", "2026-03", "credit", "2026-03"),
        ("2026-02", "2026-05", "credit", "2026-05"),
    ],
)
def test_the_decision_names_the_bill_on_which_the_line_lands(
    charged: str, first_open: str | None, kind: str, bill: str
) -> None:
    """R113: a month that is closed by the commit takes nothing; a reset there becomes a credit on the next bill."""
    at = parse_timestamp("2026-03-30T10:00:00Z")
    opens = parse_month(first_open) if first_open else None
    decision = decide_fee(order(month=charged), CancelBasis.OCR_SELLER, at, DEFAULT_TERMS, opens)
    assert fee_credit_effects(decision) == {"kind": kind, "amount": "-20.00", "bill": bill}
    message = fee_credit_message(decision, order(month=charged), at)
    assert message is not None
    assert (message.payload["month"], message.payload["charged_month"]) == ("2026-03", charged)


def test_a_month_may_be_billed_once_it_is_over() -> None:
    """R113: an hour before its end in the billing zone is soon enough, as no transaction takes that long."""
    cancelled_at = parse_timestamp("2026-03-20T10:00:00Z")
    over = parse_timestamp("2026-04-01T04:00:00Z")
    for now, expected in boundary_instants(over - timedelta(hours=1)):
        assert may_be_billed(cancelled_at, now, DEFAULT_TERMS) is expected


def test_credit_is_the_stored_charge_whatever_the_fee_slices_are_now() -> None:
    """R93."""
    charged_order = order(fee="13.37")
    decision = decide_fee(
        charged_order, CancelBasis.NPB, datetime(2026, 4, 12, tzinfo=UTC), replace(DEFAULT_TERMS, fee_slices=())
    )
    assert decision.amount == Decimal("-13.37")


def test_zero_fee_is_handled_like_any_other() -> None:
    decision = decide_fee(order(fee="0.00"), CancelBasis.NPB, ORDERED, DEFAULT_TERMS)
    assert fee_credit_effects(decision) == {"kind": "reset", "amount": "0.00", "bill": "2026-03"}
    assert fee_credit_message(decision, order(fee="0.00"), ORDERED) is not None


def test_an_unknown_month_of_charge_is_not_guessed() -> None:
    unknown = order(month=None)
    decision = decide_fee(unknown, CancelBasis.NPB, ORDERED, DEFAULT_TERMS)
    assert fee_credit_effects(decision) == {"kind": "undecided", "amount": "0.00", "bill": None}
    message = fee_credit_message(decision, unknown, ORDERED)
    assert message is not None
    assert message.payload["kind"] == "undecided"


def test_no_message_when_the_fee_stays() -> None:
    """R85."""
    assert fee_credit_message(decide_fee(order(), CancelBasis.NSS, ORDERED, DEFAULT_TERMS), order(), ORDERED) is None


def test_fee_message_is_unique_per_order_and_complete() -> None:
    """R90: its key is the order's."""
    at = datetime(2026, 4, 12, 10, tzinfo=UTC)
    message = fee_credit_message(decide_fee(order(), CancelBasis.NPB, at, DEFAULT_TERMS), order(), at)
    assert message is not None
    assert (message.task, message.key, message.order_id) == ("credits.post_to_next_invoice", "fee:1003", 1003)
    assert message.payload == {
        "kind": "credit",
        "amount": "-20.00",
        "seller_id": "s",
        "month": "2026-04",
        "charged_month": "2026-03",
        "cancelled_at": "2026-04-12T10:00:00Z",
    }


def test_billing_zone_change_never_dates_a_reset_before_its_charge() -> None:
    late = order(month="2026-04")
    decision = decide_fee(late, CancelBasis.NPB, datetime(2026, 4, 1, 1, tzinfo=UTC), DEFAULT_TERMS)
    assert (decision.kind, decision.month) == ("reset", date(2026, 4, 1))


def settlement(kind: str, month: str, charged: str = "2026-03") -> FeeSettlement:
    return FeeSettlement(1003, "s", kind, Decimal("-20.00"), parse_month(month), parse_month(charged))


@pytest.mark.parametrize(
    ("kind", "cancelled", "first_open", "posted", "bill"),
    [
        ("reset", "2026-03", "2026-02", "reset", "2026-03"),
        ("reset", "2026-03", "2026-03", "reset", "2026-03"),
        ("reset", "2026-03", "2026-04", "credit", "2026-04"),  # the bill with the charge is issued
        ("reset", "2026-03", "2026-06", "credit", "2026-06"),
        ("credit", "2026-04", "2026-03", "credit", "2026-04"),
        ("credit", "2026-04", "2026-04", "credit", "2026-04"),
        ("credit", "2026-04", "2026-05", "credit", "2026-05"),
        ("credit", "2027-01", "2026-12", "credit", "2027-01"),
    ],
)
def test_a_reset_becomes_a_credit_when_the_bill_of_the_charge_is_issued(
    kind: str, cancelled: str, first_open: str, posted: str, bill: str
) -> None:
    """R84, R86: on the bill of the cancellation's month, or on the first open one after it."""
    assert choose_credit_bill(settlement(kind, cancelled), parse_month(first_open)) == (posted, parse_month(bill))


def test_a_credit_on_a_later_bill_says_why() -> None:
    late = settlement("credit", "2026-04")
    assert settlement_note(late, "credit", parse_month("2026-04")).endswith("is credited in April 2026.")
    assert settlement_note(late, "credit", parse_month("2026-05")).endswith(
        "is credited in May 2026. The bill for April 2026 had already been issued, so the credit is on this one."
    )
    assert "the fee is reset" in settlement_note(settlement("reset", "2026-03"), "reset", parse_month("2026-03"))


def test_a_fee_message_is_read_as_it_was_written() -> None:
    at = datetime(2026, 4, 12, 10, tzinfo=UTC)
    message = fee_credit_message(decide_fee(order(), CancelBasis.NPB, at, DEFAULT_TERMS), order(), at)
    assert message is not None
    assert decide_fee_settlement(message.order_id, message.payload) == settlement("credit", "2026-04")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "undecided"}, "It is not known in which month"),
        ({"month": None}, "cannot be parsed"),
        ({"amount": "much"}, "cannot be parsed"),
        ({"amount": "20.00"}, "holds values"),
        ({"amount": "NaN"}, "holds values"),
        ({"seller_id": None}, "holds values"),
    ],
)
def test_a_message_that_cannot_be_posted_says_why(changed: dict[str, Any], reason: str) -> None:
    payload = {"kind": "credit", "amount": "-20.00", "seller_id": "s", "month": "2026-04", "charged_month": "2026-03"}
    sentence = decide_fee_settlement(1003, payload | changed)
    assert isinstance(sentence, str)
    assert reason in sentence


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, None),
        ({"order_id": None, "seller_of_order": None}, None),
        ({"amount": Decimal("0.01")}, None),
        ({"amount": Decimal("0.00")}, "amount"),
        ({"amount": Decimal("-1.00")}, "amount"),
        ({"seller_known": False}, "MEMBER_UNKNOWN"),
        ({"seller_of_order": None}, "ORDER_UNKNOWN"),
        ({"seller_of_order": "other"}, "NOT_A_PARTY"),
        ({"comment": " "}, "COMMENT_REQUIRED"),
    ],
)
def test_a_manual_credit_is_positive_and_for_a_seller_of_that_order(
    changed: dict[str, Any], answer: str | None
) -> None:
    good: dict[str, Any] = {"seller_id": "s", "amount": Decimal("3.00"), "comment": "by telephone", "order_id": 1003}
    rejection = check_manual_credit(**(good | {"seller_known": True, "seller_of_order": "s"} | changed))
    if isinstance(rejection, Invalid):
        assert rejection.path == answer
    else:
        assert (rejection and rejection.code) == answer
