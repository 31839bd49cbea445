"""The statuses of an order and its payment, the roles, the grounds of a cancellation, and groups of statuses."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
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
    NONE = "None"
    PENDING = "Pending"
    SENT = "Sent"
    RECEIVED = "Received"
    COMPLETED = "Completed"

    @property
    def is_paid(self) -> bool:
        """Whether the order is paid.  Sent, the buyer's claim, and Pending do not block the seller (R108)."""
        return self in (PaymentStatus.RECEIVED, PaymentStatus.COMPLETED)


class Role(StrEnum):
    BUYER = "buyer"
    SELLER = "seller"
    STAFF = "staff"
    SYSTEM = "system"


def counterparty(role: Role) -> Role:
    return Role.SELLER if role is Role.BUYER else Role.BUYER


class CancelBasis(StrEnum):
    OCR_SELLER = "OCR_SELLER"
    OCR_BUYER = "OCR_BUYER"
    NPB = "NPB"
    NPX = "NPX"
    NRS = "NRS"
    NSS = "NSS"
    BUYER_TERMINATED = "BUYER_TERMINATED"
    SELLER_TERMINATED = "SELLER_TERMINATED"


ALERT_LABELS: dict[str, str] = {
    "NPB": "non-paying buyer alert",
    "NRS": "non-responding seller alert",
    "NSS": "non-shipping seller alert",
}
BASIS_LABELS: dict[str, str] = {
    **{kind: f"the {label}" for kind, label in ALERT_LABELS.items()},
    CancelBasis.OCR_SELLER: "the seller's own cancel request",
    CancelBasis.OCR_BUYER: "the buyer's cancel request, to which the seller agrees",
    CancelBasis.NPX: "the penalty that the buyer accepted",
    CancelBasis.BUYER_TERMINATED: "the termination of the buyer's account",
    CancelBasis.SELLER_TERMINATED: "the termination of the seller's account",
}
STRIKE_RECIPIENTS: dict[str, Role] = {
    CancelBasis.NPB: Role.BUYER,
    CancelBasis.NPX: Role.BUYER,
    CancelBasis.NRS: Role.SELLER,
    CancelBasis.NSS: Role.SELLER,
}
"""Who gets a strike for a cancellation through an alert."""
ADDABLE_STATUSES = (Status.PENDING, Status.UPDATED, Status.PROCESSING, Status.READY)
OPEN_FLOW = (*ADDABLE_STATUSES, Status.PAID, Status.PACKED, Status.SHIPPED, Status.RECEIVED, Status.COMPLETED)
OCR_FILEABLE_BY_DEFAULT = (*ADDABLE_STATUSES, Status.PACKED)
ALERT_STATUSES = (Status.NPB, Status.NPX, Status.NRS, Status.NSS)
PROBLEM = (Status.OCR, *ALERT_STATUSES)
ALERT_BLOCKING_STATUSES = (*ALERT_STATUSES, Status.CANCELLED)
"""Without OCR: an alert supersedes the request (R22)."""
