"""What does an order cost its seller?  3 % up to 500 USD, 2 % on the part up to 1,000, 1 % above  (rules.md 7.1, R82)

The fee is that of the whole order, computed exactly and rounded once, half up to cents (rules.md 7.5, A21).
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

from policies.terms import Terms

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
_EXACT = Context(prec=60)
"""Totals have up to 24 digits and rates 18, so 60 are more than any product needs and nothing is rounded early."""


def calculate_fee(total_usd: Decimal, terms: Terms, seller_id: str) -> Decimal:
    """The fee in US dollars with cents for an order of `total_usd` (goods only); 0.00 for exempt sellers."""
    if seller_id in terms.fee_exempt_sellers:
        return ZERO
    return round_to_cents(calculate_exact_fee(total_usd, terms))


def calculate_exact_fee(total_usd: Decimal, terms: Terms) -> Decimal:
    """The fee before it is rounded: each slice of the total at its own rate."""
    owed, below = Decimal(0), Decimal(0)
    for piece in terms.fee_slices:
        top = total_usd if piece.up_to is None else min(total_usd, piece.up_to)
        if top > below:
            owed = _EXACT.add(owed, _EXACT.multiply(_EXACT.subtract(top, below), piece.rate))
            below = top
    return owed


def round_to_cents(amount: Decimal) -> Decimal:
    """Round half up to cents; never minus zero."""
    rounded = amount.quantize(CENT, rounding=ROUND_HALF_UP, context=_EXACT)
    return ZERO if rounded.is_zero() else rounded


def to_usd(total: Decimal, usd_rate: Decimal) -> Decimal:
    """An order's goods total in US dollars, unrounded, at the rate stored when it was submitted (R94)."""
    return _EXACT.multiply(total, usd_rate)
