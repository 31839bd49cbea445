"""The closed list of reasons for cancelling, with the party that may give each (R4, R6 to R9).

Some reasons are listed only to be refused with an explanation.
"""

from __future__ import annotations

from policies.statuses import Role, counterparty
from policies.verdicts import Code, Refused

MIN_OTHER_COMMENT_LENGTH = 20
"""Minimum characters of the comment for `B_OTHER` and `S_OTHER`."""

VALID_REASONS: dict[Role, dict[str, str]] = {
    Role.BUYER: {
        "B_MUTUAL": "both sides agree to call the order off",
        "B_SELLER_SILENT": "the seller does not answer",
        "B_SELLER_NO_STOCK": "the seller does not have the items",
        "B_LISTING_ERROR": "the listing was wrong",
        "B_SHIPPING_TOO_HIGH": "the postage asked is excessive and was not announced",
        "B_EXCHANGE_RATE": "the seller's currency rate breaks the exchange rate policy",
        "B_NOT_SHIPPED": "paid, but not sent",
        "B_SELLER_UNDERAGE": "the seller is under 18",
        "B_SELLER_UNREGISTERED": "the seller is no longer a member",
        "B_SYSTEM_ERROR": "the site malfunctioned when the order was submitted",
        "B_OTHER": "another reason, explained in the comment",
    },
    Role.SELLER: {
        "S_MUTUAL": "both sides agree to call the order off",
        "S_EMAIL_BOUNCED": "the buyer has no working mail address",
        "S_NOT_PAID": "the buyer did not pay",
        "S_BUYER_SILENT": "the buyer does not answer",
        "S_TERMS_BREACH": "the buyer did not keep to the store terms",
        "S_NO_FUNDS": "the buyer cannot afford the order",
        "S_PRICE_HAGGLING": "the buyer insists on lower prices",
        "S_BOGUS_ORDER": "the order was not meant seriously",
        "S_BUYER_CHANGED_MIND": "the buyer no longer wants the goods",
        "S_BUYER_FOUND_ELSEWHERE": "the buyer got the goods elsewhere",
        "S_UNDELIVERABLE": "the parcel cannot be delivered to that address",
        "S_RETURNED_PARCEL": "the parcel came back because of a wrong address",
        "S_BUYER_UNDERAGE": "the buyer is under 18",
        "S_BUYER_UNREGISTERED": "the buyer is no longer a member",
        "S_SYSTEM_ERROR": "the site malfunctioned when the order was submitted",
        "S_NO_STOCK": "the seller turned out not to have the items",
        "S_BUYER_REQUEST_OTHER": "the buyer asked for it on another ground",
        "S_OTHER": "another reason, explained in the comment",
    },
}

BRICKLINK_IDS = {"S_NO_STOCK": 60}
"""The reasons' ids in BrickLink's API, where they are known (R112)."""

INVALID_REASONS: dict[Role, dict[str, str]] = {
    Role.BUYER: {
        "B_CHANGED_MIND": "An order is a contract; no longer wanting the goods is no valid reason for a buyer. "
        "Ask the seller, who may cancel on that ground (S_BUYER_CHANGED_MIND).",
        "B_FOUND_CHEAPER": "An order is a contract; a better price elsewhere is no valid reason for a buyer. "
        "Ask the seller, who may cancel on that ground (S_BUYER_FOUND_ELSEWHERE).",
    },
    Role.SELLER: {
        "S_CHANGED_MIND": "A seller may not call off a sale because of no longer wanting to sell.",
        "S_FEE_AVOIDANCE": "Cancelling a sale that really happened to get the fee back is an offence.",
    },
}


REASONS: dict[Role, dict[str, str]] = {
    role: {
        code: words + (f" (BrickLink's API id {BRICKLINK_IDS[code]})" if code in BRICKLINK_IDS else "")
        for code, words in valid.items()
    }
    | {code: f"not valid: {why}" for code, why in INVALID_REASONS[role].items()}
    for role, valid in VALID_REASONS.items()
}
"""One line for each code that a party can be answered about, with BrickLink's id where it is known (R112)."""


def example_reason(role: Role | None) -> str:
    return "S_MUTUAL" if role is Role.SELLER else "B_MUTUAL"


def describe_reason(reason: str) -> str:
    return next((words[reason] for words in VALID_REASONS.values() if reason in words), reason)


def check_reason(reason: str, comment: str | None, role: Role) -> Refused | None:
    party = counterparty(role)
    if reason in VALID_REASONS[party] or reason in INVALID_REASONS[party]:
        return Refused(
            Code.REASON_OF_OTHER_PARTY,
            f"That is a reason of the {party}, not of the {role}.",
            unblocked_by=f"a reason from the {role}'s list",
        )
    if reason in INVALID_REASONS[role]:
        return Refused(Code.REASON_NOT_VALID, INVALID_REASONS[role][reason], unblocked_by="another, valid reason")
    if reason not in VALID_REASONS[role]:
        listed = "; ".join(f"{code}: {words}" for code, words in VALID_REASONS[role].items())
        message = f"There is no such reason. The {role}'s reasons are {listed}."
        return Refused(Code.REASON_UNKNOWN, message, unblocked_by=f"a reason from the {role}'s list")
    if reason in ("B_OTHER", "S_OTHER") and len((comment or "").strip()) < MIN_OTHER_COMMENT_LENGTH:
        return Refused(
            Code.COMMENT_REQUIRED,
            f"Another reason must be explained in a comment of at least {MIN_OTHER_COMMENT_LENGTH} characters.",
            unblocked_by="a longer comment",
        )
    return None
