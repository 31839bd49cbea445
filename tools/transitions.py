"""The transition table of an order's status as data.

T1 to T23 are numbered as in the rule book; S1 to S7 are ordinary moves and events that change no status, so that every
event is covered.  The policies decide; they are tested against this table, and docs/support.md is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.statuses import ADDABLE_STATUSES, OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, Role, Status

PREVIOUS = "previous status"
"""The target of a declined or withdrawn cancel request: the status before it (R12)."""
UNCHANGED = "no change"

NON_FINAL = tuple(status for status in Status if status is not Status.CANCELLED)
NPB_FILEABLE = (*OPEN_FLOW, Status.OCR)
NO_RETURN = "no inventory return"
FULL = (
    "stock back, alert or request closed, fee reset or credited, pending removal requests cancelled, both parties "
    "notified"
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One row.  `events` are its names in the timeline; `target` is a status, PREVIOUS, UNCHANGED or None (refused)."""

    name: str
    sources: tuple[Status, ...]
    description: str
    actors: tuple[Role, ...]
    target: Status | str | None
    effects: str
    events: tuple[str, ...]


BUYER, SELLER, STAFF, SYSTEM = Role.BUYER, Role.SELLER, Role.STAFF, Role.SYSTEM
S = Status
CANCEL = ("orders.cancelled",)

TABLE: tuple[Transition, ...] = (
    Transition(
        "T1",
        OCR_FILEABLE_BY_DEFAULT,
        "file a cancel request",
        (BUYER,),
        S.OCR,
        "previous status kept; seller notified",
        ("ocr.filed",),
    ),
    Transition(
        "T2",
        OCR_FILEABLE_BY_DEFAULT,
        "file a cancel request",
        (SELLER,),
        S.OCR,
        "previous status kept; cancel possible at once",
        ("ocr.filed",),
    ),
    Transition("T3", (S.OCR,), "decline the buyer's request", (SELLER,), PREVIOUS, "buyer notified", ("ocr.declined",)),
    Transition("T4", (S.OCR,), "agree to the buyer's request", (SELLER,), S.CANCELLED, FULL, CANCEL),
    Transition("T5", (S.OCR,), "cancel through one's own request", (SELLER,), S.CANCELLED, FULL, CANCEL),
    Transition(
        "T6", (S.OCR,), "withdraw one's own request", (BUYER, SELLER), PREVIOUS, "request closed", ("ocr.withdrawn",)
    ),
    Transition(
        "T7",
        NPB_FILEABLE,
        "file NPB, 7 days after the order date",
        (SELLER,),
        S.NPB,
        "buyer reminded and warned, and blocked in that store; an open request is superseded",
        ("npb.filed",),
    ),
    Transition(
        "T8",
        (S.NPB,),
        "answer the NPB",
        (BUYER,),
        UNCHANGED,
        "a first answer in time moves the unlock from 7 to 14 days",
        ("npb.responded", "npb.responded_again"),
    ),
    Transition(
        "T9",
        (S.NPB,),
        "accept the penalty",
        (BUYER,),
        S.NPX,
        "cancel possible at once; seller notified",
        ("npb.penalty_accepted",),
    ),
    Transition(
        "T10",
        (S.NPX,),
        "take the penalty back",
        (BUYER,),
        S.NPB,
        "counts as an answer; seller notified",
        ("npb.taken_back",),
    ),
    Transition(
        "T11", (S.NPB, S.NPX), "remove the NPB", (SELLER, STAFF), S.PENDING, "alert closed, no strike", ("npb.removed",)
    ),
    Transition(
        "T12",
        (S.NPB,),
        "the NPB matures",
        (SYSTEM,),
        UNCHANGED,
        "cancel possible; seller notified once",
        ("npb.unlocked",),
    ),
    Transition(
        "T13",
        (S.NPB, S.NPX),
        "cancel through the matured NPB or the accepted penalty",
        (SELLER,),
        S.CANCELLED,
        f"{FULL}; buyer strike",
        CANCEL,
    ),
    Transition(
        "T14",
        NPB_FILEABLE,
        "file NRS, unpaid, 7 days after the order date",
        (BUYER,),
        S.NRS,
        "seller warned and can no longer set the status",
        ("nrs.filed",),
    ),
    Transition(
        "T15",
        NPB_FILEABLE,
        "file NSS, paid, 7 days after the order date",
        (BUYER,),
        S.NSS,
        "seller warned and can no longer set the status",
        ("nss.filed",),
    ),
    Transition(
        "T16",
        (S.NRS, S.NSS),
        "remove the NRS or NSS",
        (BUYER, STAFF),
        S.PENDING,
        "alert closed",
        ("nrs.removed", "nss.removed"),
    ),
    Transition(
        "T17",
        (S.NRS, S.NSS),
        "cancel through the NRS or NSS, 14 days after filing",
        (BUYER,),
        S.CANCELLED,
        f"{NO_RETURN}, no fee credit, seller strike",
        CANCEL,
    ),
    Transition("T18", NON_FINAL, "cancel, the buyer being terminated", (SELLER,), S.CANCELLED, FULL, CANCEL),
    Transition(
        "T19",
        NON_FINAL,
        "cancel, the seller being terminated",
        (BUYER,),
        S.CANCELLED,
        f"{NO_RETURN}; fee reset or credited",
        CANCEL,
    ),
    Transition(
        "T20",
        OPEN_FLOW,
        "approve a removal request",
        (BUYER, SELLER),
        S.UPDATED,
        "order date, payment status and fee start again",
        ("removals.approved",),
    ),
    Transition(
        "T21",
        ADDABLE_STATUSES,
        "add a batch",
        (BUYER, SYSTEM),
        S.UPDATED,
        "order date, payment status and fee start again",
        ("orders.batch_added",),
    ),
    Transition("T22", (S.CANCELLED,), "anything", (BUYER, SELLER, SYSTEM), None, "refused: never reinstated", ()),
    Transition(
        "T23",
        (S.PAID,),
        "the payment is voided",
        (SYSTEM,),
        S.READY,
        "unpaid again, so NPB becomes possible",
        ("orders.payment_recorded",),
    ),
    Transition("S1", (), "submit", (SYSTEM,), S.PENDING, "stock taken, fee booked", ("orders.submitted",)),
    *(
        Transition(
            "S2",
            tuple(s for s in OPEN_FLOW if s is not to),
            f"set {to} by hand",
            (SELLER,),
            to,
            "",
            ("orders.status_set",),
        )
        for to in (S.PROCESSING, S.READY, S.PAID, S.PACKED, S.SHIPPED, S.COMPLETED)
    ),
    Transition("S3", (S.SHIPPED,), "say that it arrived", (BUYER,), S.RECEIVED, "", ("orders.status_set",)),
    Transition(
        "S3", (S.SHIPPED, S.RECEIVED), "say that it is complete", (BUYER,), S.COMPLETED, "", ("orders.status_set",)
    ),
    Transition(
        "S4",
        (S.NRS, S.NSS),
        "the NRS or NSS is answered, or matures",
        (SELLER, SYSTEM),
        UNCHANGED,
        "an answer changes no date; the buyer is notified once when it matures",
        ("nrs.responded", "nss.responded", "nrs.unlocked", "nss.unlocked"),
    ),
    Transition(
        "S5",
        NON_FINAL,
        "record a payment, or ask for, deny or withdraw a removal",
        (BUYER, SELLER, SYSTEM),
        UNCHANGED,
        "",
        ("orders.payment_recorded", "removals.requested", "removals.denied", "removals.withdrawn"),
    ),
    Transition(
        "S6",
        (S.CANCELLED,),
        "what followed the cancellation: removal requests cancelled, a strike withdrawn by staff",
        (STAFF, SYSTEM),
        UNCHANGED,
        "the order is not touched",
        ("removals.cancelled", "npb.removed", "nrs.removed", "nss.removed"),
    ),
    Transition(
        "S7",
        (S.CANCELLED,),
        "a payment is recorded after the cancellation, or settled by the seller or staff",
        (SELLER, STAFF, SYSTEM),
        UNCHANGED,
        "the order is not touched; both parties are notified of the payment",
        ("orders.paid_after_cancellation", "orders.late_payment_settled"),
    ),
    Transition(
        "S9",
        (S.NPB,),
        "give the buyer more time",
        (SELLER, STAFF),
        UNCHANGED,
        "the unlock moves to that time if it is later; the buyer is notified",
        ("npb.extended",),
    ),
    Transition(
        "S8",
        NON_FINAL,
        "hold the order against automation, or release it",
        (SELLER, STAFF),
        UNCHANGED,
        "the time of an automatic cancellation moves or goes",
        ("orders.automation_held", "orders.automation_released"),
    ),
)
