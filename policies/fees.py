"""The fee of an order by slices of its total: 3 % up to 500 USD, 2 % up to 1,000, 1 % above (R82).

The fee is calculated on the whole order and rounded once, half up to cents (A21).
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

from policies.terms import Terms

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
_FEE_PRECISION = Context(prec=60)
"""Order totals have up to 24 digits and fee rates 18, so no fee is rounded early."""


def calculate_fee(total_usd: Decimal, terms: Terms, seller_id: str) -> Decimal:
    if seller_id in terms.fee_exempt_sellers:
        return ZERO
    fee = calculate_exact_fee(total_usd, terms).quantize(CENT, rounding=ROUND_HALF_UP, context=_FEE_PRECISION)
    return ZERO if fee.is_zero() else fee


def calculate_exact_fee(total_usd: Decimal, terms: Terms) -> Decimal:
    total, slice_start = Decimal(0), Decimal(0)
    for fee_slice in terms.fee_slices:
        top = total_usd if fee_slice.up_to is None else min(total_usd, fee_slice.up_to)
        if top > slice_start:
            total = _FEE_PRECISION.add(
                total, _FEE_PRECISION.multiply(_FEE_PRECISION.subtract(top, slice_start), fee_slice.rate)
            )
            slice_start = top
    return total


def to_usd(total: Decimal, usd_rate: Decimal) -> Decimal:
    return _FEE_PRECISION.multiply(total, usd_rate)
