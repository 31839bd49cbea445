"""The verdicts of policies: `Granted` with its effects and outbox messages, `Refused` with a code, or `Invalid`.

Verdicts are values, not exceptions.  The refusal codes are a closed list in the public contract, in order of
precedence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from policies.cases import Case


class Code(StrEnum):
    ORDER_UNKNOWN = "ORDER_UNKNOWN"
    MEMBER_UNKNOWN = "MEMBER_UNKNOWN"
    LOT_UNKNOWN = "LOT_UNKNOWN"
    REMOVAL_UNKNOWN = "REMOVAL_UNKNOWN"
    DRAFT_UNKNOWN = "DRAFT_UNKNOWN"
    BILL_UNKNOWN = "BILL_UNKNOWN"
    REASON_UNKNOWN = "REASON_UNKNOWN"
    NOT_A_PARTY = "NOT_A_PARTY"
    ALREADY_CANCELLED = "ALREADY_CANCELLED"
    WRONG_ROLE = "WRONG_ROLE"
    NO_OPEN_REQUEST = "NO_OPEN_REQUEST"
    NO_OPEN_ALERT = "NO_OPEN_ALERT"
    NO_LATE_PAYMENT = "NO_LATE_PAYMENT"
    ORDER_HAS_PROBLEM = "ORDER_HAS_PROBLEM"
    WRONG_STATUS = "WRONG_STATUS"
    TOO_EARLY = "TOO_EARLY"
    ALREADY_PAID = "ALREADY_PAID"
    NOT_PAID = "NOT_PAID"
    REASON_OF_OTHER_PARTY = "REASON_OF_OTHER_PARTY"
    REASON_NOT_VALID = "REASON_NOT_VALID"
    COMMENT_REQUIRED = "COMMENT_REQUIRED"
    MEMBER_TERMINATED = "MEMBER_TERMINATED"
    PRIVILEGE_REVOKED = "PRIVILEGE_REVOKED"
    BUYER_BLOCKED_IN_STORE = "BUYER_BLOCKED_IN_STORE"
    NOT_ENOUGH_STOCK = "NOT_ENOUGH_STOCK"
    NOTHING_WOULD_REMAIN = "NOTHING_WOULD_REMAIN"
    REMOVAL_NOT_PENDING = "REMOVAL_NOT_PENDING"
    DRAFT_STALE = "DRAFT_STALE"
    DRAFT_EXPIRED = "DRAFT_EXPIRED"
    DRAFT_INCOMPLETE = "DRAFT_INCOMPLETE"
    RETURN_NOT_ALLOWED = "RETURN_NOT_ALLOWED"
    BILL_ALREADY_ISSUED = "BILL_ALREADY_ISSUED"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"


@dataclass(frozen=True)
class Event:
    """An entry in the order's timeline (R100).

    `changes` holds the changed fields of order, alert and OCR as JSON values, so that folding an order's events
    gives its row (`policies.history`).
    """

    type: str
    note: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A task to run after the commit: one row of the outbox.

    `key` is unique, so that a message inserted twice is published once.  `payload` holds the task's facts as JSON.
    """

    task: str
    key: str
    order_id: int | None
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Granted:
    case: Case
    event: Event | None = None
    messages: tuple[OutboxMessage, ...] = ()
    effects: dict[str, Any] = field(default_factory=dict)


PartT = TypeVar("PartT")


@dataclass(frozen=True, kw_only=True)
class GrantedPart(Granted, Generic[PartT]):
    """A granted command about a part of an order that has an id of its own, and the part as it is afterwards."""

    part: PartT


ASK_AGAIN = "; ask again then, under a new request id."


@dataclass(frozen=True, slots=True)
class Refused:
    """The command is refused: a code, a sentence for people, and what would unblock it.

    `possible_from` is set when time alone unblocks it.
    """

    code: Code
    message: str
    possible_from: datetime | None = None
    unblocked_by: str = ""

    @property
    def sentence(self) -> str:
        return self.message if self.possible_from is None else self.message.removesuffix(".") + ASK_AGAIN


@dataclass(frozen=True, slots=True)
class Invalid:
    path: str
    message: str


Verdict = Granted | Refused | Invalid
