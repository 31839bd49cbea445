"""Tests of the totals, visible lines and state of a bill."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bills import (
    BillLine,
    bill_state,
    calculate_totals,
    open_billing_month,
    overpaid_bill_amount,
    visible_bill_lines,
)
from policies.terms import DEFAULT_TERMS
from policies.timestamps import parse_timestamp

NOW = datetime(2026, 4, 10, tzinfo=UTC)
MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)


def line(kind: str, amount: str, order_id: int = 1003, charged: date = APRIL) -> BillLine:
    return BillLine(kind, order_id, Decimal(amount), "", NOW, charged)


def kinds(lines: list[BillLine]) -> list[tuple[str, str]]:
    return [(line_.kind, str(line_.amount)) for line_ in lines]


TOTALS = [
    # sum of lines, opening credit, minimum -> total, carried forward
    ("0.00", "0.00", "0.00", "0.00", "0.00"),
    ("20.00", "0.00", "0.00", "20.00", "0.00"),  # E2, March
    ("15.50", "0.00", "0.00", "15.50", "0.00"),  # E2, April
    ("-3.00", "0.00", "0.00", "0.00", "-3.00"),  # E3
    ("-15.00", "0.00", "0.00", "0.00", "-15.00"),  # E5, April
    ("18.00", "-15.00", "0.00", "3.00", "0.00"),  # E5, May
    ("10.00", "0.00", "0.00", "10.00", "0.00"),  # E6
    ("-9.00", "0.00", "0.00", "0.00", "-9.00"),  # E7
    ("15.00", "-15.00", "0.00", "0.00", "0.00"),
    ("0.01", "-15.00", "0.00", "0.00", "-14.99"),
    ("0.00", "-15.00", "0.00", "0.00", "-15.00"),
    ("-5.00", "-15.00", "0.00", "0.00", "-20.00"),
    ("4.99", "0.00", "5.00", "0.00", "4.99"),
    ("5.00", "0.00", "5.00", "5.00", "0.00"),
    ("0.01", "4.99", "5.00", "5.00", "0.00"),
    ("0.00", "4.99", "5.00", "0.00", "4.99"),
    ("-4.99", "4.99", "5.00", "0.00", "0.00"),
    ("-6.00", "4.99", "5.00", "0.00", "-1.01"),
]


@pytest.mark.parametrize(("lines", "opening", "minimum", "total", "carried"), TOTALS)
def test_total_is_at_least_zero_and_the_rest_is_carried_forward(
    lines: str, opening: str, minimum: str, total: str, carried: str
) -> None:
    """R91, `MINIMUM_BILL`."""
    bills_ = calculate_totals(Decimal(lines), Decimal(opening), replace(DEFAULT_TERMS, minimum_bill=Decimal(minimum)))
    assert (str(bills_.total), str(bills_.carried_forward)) == (total, carried)


cents = st.decimals(min_value=-2000, max_value=2000, places=2)


@given(st.lists(cents, max_size=24), st.decimals(min_value=0, max_value=50, places=2))
def test_no_cent_is_lost_over_any_number_of_months(months: list[Decimal], minimum: Decimal) -> None:
    terms = replace(DEFAULT_TERMS, minimum_bill=minimum)
    bills_ = [calculate_totals(Decimal(0), Decimal(0), terms)]
    for lines in months:
        bills_.append(calculate_totals(lines, bills_[-1].carried_forward, terms))
    assert sum(months) == sum(line_.total for line_ in bills_) + bills_[-1].carried_forward
    for before, after in pairwise(bills_):
        assert after.opening_credit == before.carried_forward
        assert after.lines_sum + after.opening_credit == after.total + after.carried_forward
        assert after.total >= 0
        assert after.carried_forward < max(minimum, Decimal("0.01"))


VISIBLE_LINES = [
    ("nothing", [], []),
    ("a charge", [("charge", "20.00")], [("charge", "20.00")]),
    ("a charge and its reset (E1)", [("charge", "3.60"), ("reset", "-3.60")], []),
    ("a credit", [("credit", "-20.00")], [("credit", "-20.00")]),
    (
        "a batch in a later month (E6)",
        [("reversal", "-9.00"), ("charge", "19.00")],
        [("reversal", "-9.00"), ("charge", "19.00")],
    ),
    (
        "a batch in a later month, then cancelled (E7)",
        [("reversal", "-9.00"), ("charge", "19.00"), ("reset", "-19.00")],
        [("reversal", "-9.00")],
    ),
]


@pytest.mark.parametrize(
    ("lines", "expected"), [case[1:] for case in VISIBLE_LINES], ids=[case[0] for case in VISIBLE_LINES]
)
def test_charge_and_reset_within_one_month_are_hidden(
    lines: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    """R83."""
    charged = {"reversal": MARCH, "credit": MARCH}
    stored_lines = [line(kind, amount, charged=charged.get(kind, APRIL)) for kind, amount in lines]
    assert kinds(visible_bill_lines(stored_lines, APRIL)) == expected


def test_batch_charges_are_visible_until_the_order_is_reset() -> None:
    """R83: an order that was charged, recharged and cancelled in one month doesn't appear."""
    batch = [line("charge", "9.00"), line("reversal", "-9.00"), line("charge", "19.00")]
    assert kinds(visible_bill_lines(batch, APRIL)) == [("charge", "9.00"), ("reversal", "-9.00"), ("charge", "19.00")]
    assert visible_bill_lines([*batch, line("reset", "-19.00")], APRIL) == []


def test_reset_does_not_hide_charges_of_other_orders() -> None:
    lines = [line("charge", "3.00", 1), line("charge", "3.00", 2), line("reset", "-3.00", 1)]
    assert [line_.order_id for line_ in visible_bill_lines(lines, APRIL)] == [2]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 300)), max_size=12), st.sets(st.integers(1, 4)))
def test_hidden_lines_sum_to_zero(charges: list[tuple[int, int]], reset: set[int]) -> None:
    lines: list[BillLine] = []
    last: dict[int, str] = {}
    for order_id, amount in charges:
        if order_id in last:
            lines.append(line("reversal", f"-{last[order_id]}", order_id))
        last[order_id] = f"{amount}.00"
        lines.append(line("charge", last[order_id], order_id))
    lines.extend(line("reset", f"-{last[line_]}", line_) for line_ in sorted(reset) if line_ in last)
    assert sum(line_.amount for line_ in visible_bill_lines(lines, APRIL)) == sum(line_.amount for line_ in lines)
    assert not {line_.order_id for line_ in visible_bill_lines(lines, APRIL)} & reset


@pytest.mark.parametrize(
    ("total", "paid", "seconds", "state"),
    [
        ("20.00", "0.00", -1, "issued"),
        ("20.00", "0.00", 0, "past_due"),
        ("20.00", "19.99", -1, "issued"),
        ("20.00", "19.99", 0, "past_due"),
        ("20.00", "20.00", 0, "paid"),
        ("20.00", "25.00", 0, "paid"),
        ("0.00", "0.00", -1, "paid"),
        ("0.00", "0.00", 0, "paid"),
    ],
)
def test_bill_state_is_issued_then_paid_or_past_due(total: str, paid: str, seconds: int, state: str) -> None:
    """R92; a bill of 0.00 is paid at issue."""
    due = datetime(2026, 5, 6, 4, tzinfo=UTC)
    assert bill_state(Decimal(total), Decimal(paid), due, due + timedelta(seconds=seconds)) == state


@pytest.mark.parametrize(
    ("total", "before", "amount", "over"),
    [
        ("20.00", "0.00", "20.00", "0.00"),
        ("20.00", "0.00", "5.00", "0.00"),
        ("20.00", "15.00", "5.00", "0.00"),
        ("20.00", "15.00", "5.01", "0.01"),
        ("20.00", "0.00", "32.50", "12.50"),
        ("20.00", "20.00", "1.00", "1.00"),
        ("20.00", "30.00", "1.00", "1.00"),
        ("0.00", "0.00", "7.00", "7.00"),
    ],
)
def test_payment_beyond_the_total_is_overpaid(total: str, before: str, amount: str, over: str) -> None:
    assert str(overpaid_bill_amount(Decimal(total), Decimal(before), Decimal(amount))) == over


@pytest.mark.parametrize(
    ("now", "month"),
    [
        ("2026-04-01T04:00:00Z", MARCH),
        ("2026-04-05T03:59:59Z", MARCH),
        ("2026-04-05T04:00:00Z", APRIL),
        ("2026-04-30T12:00:00Z", APRIL),
    ],
)
def test_open_month_is_the_next_to_be_issued(now: str, month: date) -> None:
    assert open_billing_month(parse_timestamp(now), DEFAULT_TERMS) == month
