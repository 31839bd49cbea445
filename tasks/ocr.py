"""Commands about order cancel requests (OCR). A seller agrees to one with `orders.cancel`."""

from __future__ import annotations

from policies import ocr as policy
from policies.reasons import example_reason
from tasks.cases import declare_case_command
from tasks.command import Comment, Reason
from tasks.declarations import BUYER, SELLER

declare_case_command(
    "ocr.file",
    policy.file_ocr,
    "File a request by either party and notify the other once (T1, T2).",
    arguments={"reason": Reason, "comment": Comment},
    example=BUYER | {"reason": "B_MUTUAL", "comment": "ordered the wrong colour"},
    option="file a cancel request",
    option_arguments=lambda subject, actor: {"reason": example_reason(subject.case.role_of(actor))},
)

declare_case_command(
    "ocr.decline",
    policy.decline_ocr,
    "Decline a request as the seller; the order returns to its earlier status (T3).",
    example=SELLER,
    option="decline the cancel request",
)

declare_case_command(
    "ocr.withdraw",
    policy.withdraw_ocr,
    "Withdraw a request as its filer (T6).",
    example=BUYER,
    option="withdraw the cancel request",
)
