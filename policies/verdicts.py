"""What can a rule answer?  Yes with everything that follows, or no with a code that a person can act on.

Verdicts are words, not exceptions: a policy returns `Granted`, `Refused` or `Invalid`, and whoever asked carries it out.
The refusal codes are the closed list of the public contract, in its order of precedence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from policies.cases import Case


class Code(StrEnum):
    """Why not: every refusal carries exactly one of these."""

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


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, for the order's timeline (R100).

    `changes` holds the fields of the order, alert or OCR that moved, as JSON values, so that folding an order's events
    gives its row again (`policies.history`).
    """

    type: str
    note: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """Work that must follow the commit: one outbox row.

    `key` is unique for ever, so the same promise made twice is one promise.  `payload` holds JSON facts for the follower.
    """

    task: str
    key: str
    order_id: int | None
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Granted:
    """Yes: the case as it is afterwards, what happened, what must follow, and what the caller is told."""

    case: Case
    events: tuple[Event, ...] = ()
    messages: tuple[OutboxMessage, ...] = ()
    effects: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """No: a code, a sentence a support agent can read out, and what would change it.

    `possible_from` is set when time alone would change the answer.
    """

    code: Code
    message: str
    possible_from: datetime | None = None
    unblocked_by: str = ""


@dataclass(frozen=True, slots=True)
class Invalid:
    """The arguments contradict the facts (more units than remain, an instant in the future): nothing is kept."""

    path: str
    message: str


Verdict = Granted | Refused | Invalid
