"""Tests of the fee by slices (R82)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.fees import calculate_exact_fee, calculate_fee, to_usd
from policies.terms import DEFAULT_TERMS, FeeSlice

GOLDEN = [
    # total, fee
    ("0.00", "0.00"),
    ("0.01", "0.00"),
    ("0.16", "0.00"),
    ("0.1666", "0.00"),
    ("0.1667", "0.01"),
    ("0.17", "0.01"),
    ("0.4999", "0.01"),
    ("0.50", "0.02"),  # 0.0150 exactly: half up
    ("1.00", "0.03"),
    ("12.34", "0.37"),
    ("49.99", "1.50"),
    ("99.9999", "3.00"),
    ("100.00", "3.00"),
    ("120.00", "3.60"),
    ("123.45", "3.70"),
    ("300.00", "9.00"),
    ("333.33", "10.00"),
    ("499.83", "14.99"),
    ("499.84", "15.00"),
    ("499.99", "15.00"),
    ("500.00", "15.00"),
    ("500.01", "15.00"),
    ("500.2499", "15.00"),
    ("500.25", "15.01"),  # 15.0050 exactly: half even would give 15.00
    ("500.50", "15.01"),
    ("600.00", "17.00"),  # two orders of 300.00 would be 18.00
    ("700.00", "19.00"),
    ("750.00", "20.00"),
    ("999.74", "24.99"),
    ("999.75", "25.00"),
    ("1000.00", "25.00"),
    ("1000.4999", "25.00"),
    ("1000.50", "25.01"),  # 25.0050 exactly: half even would give 25.00
    ("1234.56", "27.35"),
    ("1250.00", "27.50"),
    ("1550.00", "30.50"),
    ("2500.00", "40.00"),
    ("10000.00", "115.00"),
    ("99999999999999999999.9999", "1000000000000000015.00"),
]


@pytest.mark.parametrize(("total", "owed"), GOLDEN, ids=[total for total, _ in GOLDEN])
def test_the_fee_is_three_two_and_one_percent_by_slices_rounded_once_half_up(total: str, owed: str) -> None:
    """R82."""
    assert str(calculate_fee(Decimal(total), DEFAULT_TERMS, "s")) == owed


def test_exempt_seller_pays_no_fee() -> None:
    exempt = replace(DEFAULT_TERMS, fee_exempt_sellers=("s",))
    assert str(calculate_fee(Decimal(750), exempt, "s")) == "0.00"
    assert str(calculate_fee(Decimal(750), exempt, "t")) == "20.00"


def test_an_order_in_another_currency_is_charged_in_dollars_at_its_stored_rate() -> None:
    """R94: 100.00 euros at 1.0825 are 108.25 dollars."""
    assert str(calculate_fee(to_usd(Decimal("100.0000"), Decimal("1.08250000")), DEFAULT_TERMS, "s")) == "3.25"


def test_operator_can_set_fee_slices() -> None:
    flat = replace(DEFAULT_TERMS, fee_slices=(FeeSlice(None, Decimal("0.025")),))
    assert str(calculate_fee(Decimal("1234.56"), flat, "s")) == "30.86"


dollars = st.decimals(min_value=0, max_value=100_000, places=4)


@given(dollars, dollars)
def test_fee_never_decreases_with_the_total(first: Decimal, second: Decimal) -> None:
    less, more = sorted((first, second))
    assert calculate_fee(less, DEFAULT_TERMS, "s") <= calculate_fee(more, DEFAULT_TERMS, "s")


@given(st.sampled_from([Decimal(500), Decimal(1000)]), st.decimals(min_value=0, max_value=1, places=4))
def test_the_fee_does_not_jump_where_slices_meet(at: Decimal, step: Decimal) -> None:
    below, at_edge, above = (calculate_exact_fee(at + way * step, DEFAULT_TERMS) for way in (-1, 0, 1))
    assert 0 <= at_edge - below <= step * Decimal("0.03")
    assert 0 <= above - at_edge <= step * Decimal("0.03")


@given(dollars, dollars)
def test_fees_of_two_orders_are_at_least_the_fee_of_both_as_one(first: Decimal, second: Decimal) -> None:
    """This is why the whole order is charged and not each batch."""
    together = calculate_exact_fee(first + second, DEFAULT_TERMS)
    assert together <= calculate_exact_fee(first, DEFAULT_TERMS) + calculate_exact_fee(second, DEFAULT_TERMS)


@given(dollars)
def test_a_fee_has_two_decimals_and_is_within_half_a_cent_of_the_exact_one(total: Decimal) -> None:
    owed = calculate_fee(total, DEFAULT_TERMS, "s")
    assert owed.as_tuple().exponent == -2
    assert abs(owed - calculate_exact_fee(total, DEFAULT_TERMS)) <= Decimal("0.005")
