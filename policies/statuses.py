"""In which states can an order be, and which of them belong together?  (rules.md 2.1)"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The 15 live values of an order's status, in the order of their codes 0 to 14."""

    PENDING = "PENDING"
    UPDATED = "UPDATED"
    PROCESSING = "PROCESSING"
    READY = "READY"
    PAID = "PAID"
    PACKED = "PACKED"
    SHIPPED = "SHIPPED"
    RECEIVED = "RECEIVED"
    COMPLETED = "COMPLETED"
    OCR = "OCR"
    NPB = "NPB"
    NPX = "NPX"
    NRS = "NRS"
    NSS = "NSS"
    CANCELLED = "CANCELLED"


class PaymentStatus(StrEnum):
    """What is known of the money.  Only Received and Completed count as paid (rules.md 3.2)."""

    NONE = "None"
    SENT = "Sent"
    RECEIVED = "Received"
    COMPLETED = "Completed"

    @property
    def is_paid(self) -> bool:
        """Sent is only the buyer's claim and never blocks a seller."""
        return self in (PaymentStatus.RECEIVED, PaymentStatus.COMPLETED)


class Role(StrEnum):
    """Who acts, seen from one order."""

    BUYER = "buyer"
    SELLER = "seller"
    STAFF = "staff"
    SYSTEM = "system"


class Basis(StrEnum):
    """On what ground an order was cancelled (R61)."""

    OCR_SELLER = "OCR_SELLER"
    OCR_BUYER = "OCR_BUYER"
    NPB = "NPB"
    NPX = "NPX"
    NRS = "NRS"
    NSS = "NSS"
    BUYER_TERMINATED = "BUYER_TERMINATED"
    SELLER_TERMINATED = "SELLER_TERMINATED"


OPEN_FLOW = (
    Status.PENDING,
    Status.UPDATED,
    Status.PROCESSING,
    Status.READY,
    Status.PAID,
    Status.PACKED,
    Status.SHIPPED,
    Status.RECEIVED,
    Status.COMPLETED,
)
OCR_FILEABLE_BY_DEFAULT = (Status.PENDING, Status.UPDATED, Status.PROCESSING, Status.READY, Status.PACKED)  # [74]
ADDABLE = (Status.PENDING, Status.UPDATED, Status.PROCESSING, Status.READY)  # [62]
PROBLEM = (Status.OCR, Status.NPB, Status.NPX, Status.NRS, Status.NSS)
ALERT_BLOCKERS = (Status.NPB, Status.NPX, Status.NRS, Status.NSS, Status.CANCELLED)  # [72][1111]: OCR is not in it
