"""What does the bill of a month say?  Issued once and never changed; open ones are computed  (rules.md 7, R86)"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Table,
    Text,
    UniqueConstraint,
)

from models.schema import Cents, Instant, a_number, metadata

bills = Table(
    "bills",
    metadata,
    Column("bill_id", BigInteger, Identity(), primary_key=True),
    Column("seller_id", Text, ForeignKey("unwind.members.member_id"), nullable=False),
    Column("billing_month", Date, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("issued_on", Date, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("grace_until", Date, nullable=False),
    Column("past_due_at", Instant, nullable=False),
    Column("opening_credit", Cents, nullable=False),
    Column("lines_sum", Cents, nullable=False),
    Column("total", Cents, nullable=False),
    Column("carried_forward", Cents, nullable=False),
    Column("lines_hash", Text, nullable=False),
    UniqueConstraint("seller_id", "billing_month"),
    a_number("opening_credit"),
    a_number("lines_sum"),
    a_number("total"),
    a_number("carried_forward"),
    CheckConstraint("lines_sum + opening_credit = total + carried_forward", name="adds_up"),
    CheckConstraint("total >= 0 AND (total = 0 OR carried_forward = 0)", name="floored_at_zero"),
    CheckConstraint("extract(day FROM billing_month) = 1", name="billing_month_is_a_month"),
)
