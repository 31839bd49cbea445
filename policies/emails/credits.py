"""Sentences that say where the fee of a cancelled order was credited, for support (R83 to R90)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.billing_months import month_name, parse_month


def describe_fee_credit(fee: Mapping[str, Any]) -> str:
    """Describe one row of a fee report (`kind`, `state`, `amount`, months as `2026-03`, days as dates)."""
    amount = str(fee["amount"]).removeprefix("-")
    bill = month_name(parse_month(fee["bill_month"])) if fee["bill_month"] else "a bill that is not known"
    if fee["state"] == "stays":
        return "The fee stays: a cancellation through NRS or NSS gives no credit."
    if fee["state"] == "given_up":
        return "It could not be posted and waits for staff: ./run jobs dead."
    if fee["state"] == "promised":
        return f"{amount} USD will be on the bill of {bill}: the posting is on its way."
    if fee["kind"] == "reset":
        return f"The fee of {amount} USD was taken off the bill of {bill}, the month in which it was charged."
    if fee["bill_issued_on"]:
        return f"{amount} USD are on the bill of {bill}, made on {fee['bill_issued_on']}."
    return f"{amount} USD are on the bill of {bill}, which is still open."
