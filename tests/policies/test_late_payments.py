"""Payments that are recorded after the cancellation: what each report changes, and who may settle them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies import cancellation, late_payments, ocr, orders
from policies.cases import Case
from policies.statuses import PaymentStatus
from policies.verdicts import Granted
from tests.builders import BUYER, DAY, ORDERED, SELLER, STAFF, STRANGER, a_case, code, granted

NONE, PENDING, SENT, RECEIVED, COMPLETED = PaymentStatus
AT = ORDERED + DAY


def cancelled(payment: PaymentStatus = NONE) -> Case:
    requested = granted(ocr.file_ocr(a_case(payment=payment), SELLER, "S_MUTUAL", "agreed", ORDERED))
    return granted(cancellation.cancel(requested, SELLER, None, None, ORDERED))


def record(case: Case, payment: PaymentStatus) -> Granted:
    verdict = orders.record_order_payment(case, payment, AT)
    assert isinstance(verdict, Granted), verdict
    return verdict


@pytest.mark.parametrize("payment", [PENDING, SENT, RECEIVED, COMPLETED])
def test_a_payment_for_a_cancelled_order_is_kept_and_both_parties_are_notified(payment: PaymentStatus) -> None:
    """R107, N19: the order stays as it is."""
    before = cancelled()
    verdict = record(before, payment)
    assert verdict.case.order == before.order
    late = verdict.case.open_late_payment
    assert late is not None
    assert (late.payment_status, late.recorded_at) == (payment, AT)
    assert verdict.event is not None
    assert verdict.event.type == "orders.paid_after_cancellation"
    assert [(m.task, m.payload["event"]) for m in verdict.messages] == [
        ("notices.tell_seller", "payment_after_cancellation"),
        ("notices.tell_buyer", "payment_after_cancellation"),
    ]


def test_no_payment_for_a_cancelled_order_is_refused() -> None:
    """R107, R56: `None` is no payment, and a cancelled order does not change."""
    assert code(orders.record_order_payment(cancelled(), NONE, AT)) == "ALREADY_CANCELLED"


@pytest.mark.parametrize("payment", [SENT, RECEIVED])
def test_what_was_known_before_the_cancellation_is_no_late_payment(payment: PaymentStatus) -> None:
    """R107: a repeated report of the same payment says nothing new."""
    verdict = record(cancelled(payment), payment)
    assert (verdict.case.late_payment, verdict.event, verdict.messages) == (None, None, ())
    assert record(cancelled(payment), COMPLETED).case.open_late_payment is not None


@pytest.mark.parametrize(
    ("first", "second", "is_event", "notified"),
    [
        (SENT, SENT, False, 0),
        (SENT, PENDING, True, 0),
        (SENT, RECEIVED, True, 2),
        (PENDING, COMPLETED, True, 2),
        (RECEIVED, COMPLETED, True, 0),
        (RECEIVED, SENT, True, 0),
    ],
)
def test_further_reports_change_the_open_late_payment(
    first: PaymentStatus, second: PaymentStatus, is_event: bool, notified: int
) -> None:
    """R107, N19: one payment is one row; the parties hear again only when a claimed payment is received."""
    once = granted(record(cancelled(), first))
    again = orders.record_order_payment(once, second, AT + DAY)
    assert isinstance(again, Granted)
    late = again.case.open_late_payment
    assert late is not None
    assert (late.payment_status, late.recorded_at) == (second, AT)
    assert (again.event is not None, len(again.messages)) == (is_event, notified)


def test_the_seller_or_staff_settles_a_late_payment() -> None:
    """R107: the buyer does not, and nobody twice."""
    paid = granted(record(cancelled(), RECEIVED))
    assert code(late_payments.settle_late_payment(paid, BUYER, "it came back", AT)) == "WRONG_ROLE"
    assert code(late_payments.settle_late_payment(paid, STRANGER, "it came back", AT)) == "NOT_A_PARTY"
    assert code(late_payments.settle_late_payment(paid, SELLER, " \n", AT)) == "COMMENT_REQUIRED"
    for actor in (SELLER, STAFF):
        settled = granted(late_payments.settle_late_payment(paid, actor, "sent back", AT + DAY))
        late = settled.late_payment
        assert late is not None
        assert (late.settled_at, late.settled_by, late.comment) == (AT + DAY, str(actor), "sent back")
        assert settled.order == replace(paid.order, version=settled.order.version)
        assert code(late_payments.settle_late_payment(settled, actor, "sent back", AT + DAY)) == "NO_LATE_PAYMENT"


def test_nothing_is_settled_where_no_payment_came_too_late() -> None:
    """R107: neither on an open order nor on a cancelled one that was not paid."""
    for case in (a_case(payment=RECEIVED), cancelled(), cancelled(RECEIVED)):
        assert code(late_payments.settle_late_payment(case, SELLER, "sent back", AT)) == "NO_LATE_PAYMENT"


def test_a_payment_after_the_settlement_is_another_one() -> None:
    """R107: money that arrives again has to be sent back again."""
    paid = granted(record(cancelled(), RECEIVED))
    settled = granted(late_payments.settle_late_payment(paid, SELLER, "sent back", AT + DAY))
    second = orders.record_order_payment(settled, RECEIVED, AT + 2 * DAY)
    assert isinstance(second, Granted)
    late = second.case.open_late_payment
    assert late is not None
    assert (late.recorded_at, late.late_payment_id, len(second.messages)) == (AT + 2 * DAY, None, 2)
