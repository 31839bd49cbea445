"""One-line explanations of statuses, cancellation grounds and refusal codes, for support and integrators."""

from __future__ import annotations

from policies.statuses import CancelBasis, Status
from policies.verdicts import Code

STATUSES: dict[Status, str] = {
    Status.PENDING: "submitted; the seller has not acted yet. Removing an alert leads back here",
    Status.UPDATED: "items have been added or removed",
    Status.PROCESSING: "seen by the seller, who cannot send an invoice yet",
    Status.READY: "checked, costs added, invoice sent",
    Status.PAID: "payment received",
    Status.PACKED: "sealed, not sent",
    Status.SHIPPED: "sent",
    Status.RECEIVED: "arrived, not checked by the buyer",
    Status.COMPLETED: "arrived and checked",
    Status.OCR: "a cancel request is open; nobody is penalised by it",
    Status.NPB: "a non-paying buyer alert is open",
    Status.NPX: "the buyer has accepted the penalty of the NPB; the seller may cancel at once, but has not done so yet",
    Status.NRS: "a non-responding seller alert is open: nothing paid, seller silent",
    Status.NSS: "a non-shipping seller alert is open: paid, and not shipped, incomplete or not as described",
    Status.CANCELLED: "final",
}

BASES: dict[CancelBasis, str] = {
    CancelBasis.OCR_SELLER: "through the seller's own cancel request",
    CancelBasis.OCR_BUYER: "the seller agreed to the buyer's cancel request",
    CancelBasis.NPB: "through a matured non-paying buyer alert; a strike for the buyer",
    CancelBasis.NPX: "the buyer accepted the penalty; a strike for the buyer",
    CancelBasis.NRS: "through a matured non-responding seller alert; no return, no credit, a strike for the seller",
    CancelBasis.NSS: "through a matured non-shipping seller alert; no return, no credit, a strike for the seller",
    CancelBasis.BUYER_TERMINATED: "the buyer's account is closed",
    CancelBasis.SELLER_TERMINATED: "the seller's account is closed; nothing returns to the inventory",
}

CODES: dict[Code, str] = {
    Code.ORDER_UNKNOWN: "no order has this id",
    Code.MEMBER_UNKNOWN: "no member has this id",
    Code.LOT_UNKNOWN: "no such lot, or not for sale to this buyer",
    Code.REMOVAL_UNKNOWN: "no removal request has this id",
    Code.DRAFT_UNKNOWN: "no draft has this id",
    Code.BILL_UNKNOWN: "no bill has been issued to this seller for that month",
    Code.REASON_UNKNOWN: "no such reason",
    Code.NOT_A_PARTY: "neither the buyer nor the seller of the order",
    Code.ALREADY_CANCELLED: "the order is cancelled, and that is final",
    Code.WRONG_ROLE: "the other party, or staff, may do this",
    Code.NO_OPEN_REQUEST: "the command needs an open cancel request, and none is open",
    Code.NO_OPEN_ALERT: "the command needs an open alert of that kind, and none is open",
    Code.NO_LATE_PAYMENT: "no payment has come in after the cancellation, or it has been settled already",
    Code.ORDER_HAS_PROBLEM: "an open request or alert is in the way",
    Code.WRONG_STATUS: "not possible in the order's status",
    Code.TOO_EARLY: "it becomes possible with time alone: ask again at possible_from, under a new request id",
    Code.ALREADY_PAID: "the payment has been received, so the buyer is not a non-paying buyer",
    Code.NOT_PAID: "nothing has been paid, so nothing can be missing for it",
    Code.REASON_OF_OTHER_PARTY: "that reason is on the other party's list",
    Code.REASON_NOT_VALID: "that reason is listed as not valid",
    Code.COMMENT_REQUIRED: "the comment is blank, or too short for that reason",
    Code.MEMBER_TERMINATED: "the account is closed: no new purchases",
    Code.PRIVILEGE_REVOKED: "buying is revoked or selling suspended, after too many strikes",
    Code.BUYER_BLOCKED_IN_STORE: "an order of this buyer in this store is in NPB",
    Code.NOT_ENOUGH_STOCK: "the lot has fewer units",
    Code.NOTHING_WOULD_REMAIN: "an order is emptied by cancelling it, not by removals",
    Code.REMOVAL_NOT_PENDING: "the removal request has already been decided",
    Code.DRAFT_STALE: "the order has changed since the draft was opened, or a lot since it was verified",
    Code.DRAFT_EXPIRED: "the draft is older than a day",
    Code.DRAFT_INCOMPLETE: "the draft has not been verified without problems",
    Code.RETURN_NOT_ALLOWED: "nothing of this order may return to the inventory",
    Code.BILL_ALREADY_ISSUED: "an issued bill never changes",
    Code.ALREADY_EXISTS: "this id is already in use",
    Code.REQUEST_ID_REUSED: "the request id has been used before with other arguments (outcome `conflict`)",
}
