"""Commands about order cancel requests (OCR). A seller agrees to one with `orders.cancel`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from policies import ocr as policy
from policies.cases import Case
from policies.reasons import example_reason
from policies.verdicts import Verdict
from tasks.cases import case_command
from tasks.command import Comment, OrderCommand, Reason
from tasks.declarations import BUYER, SELLER


class FileOcr(OrderCommand):
    task: ClassVar[str] = "ocr.file"
    reason: Reason
    comment: Comment


class DeclineOcr(OrderCommand):
    task: ClassVar[str] = "ocr.decline"


class WithdrawOcr(OrderCommand):
    task: ClassVar[str] = "ocr.withdraw"


@case_command(
    FileOcr,
    example=BUYER | {"reason": "B_MUTUAL", "comment": "ordered the wrong colour"},
    option="file a cancel request",
    option_arguments=lambda subject, actor: {"reason": example_reason(subject.case.role_of(actor))},
)
def file_ocr(command: FileOcr, case: Case, now: datetime) -> Verdict:
    """File a request by either party and notify the other once (T1, T2)."""
    return policy.file_ocr(case, command.actor, command.reason, command.comment, now)


@case_command(DeclineOcr, example=SELLER, option="decline the cancel request")
def decline_ocr(command: DeclineOcr, case: Case, now: datetime) -> Verdict:
    """Decline a request as the seller; the order returns to its earlier status (T3)."""
    return policy.decline_ocr(case, command.actor, now)


@case_command(WithdrawOcr, example=BUYER, option="withdraw the cancel request")
def withdraw_ocr(command: WithdrawOcr, case: Case, now: datetime) -> Verdict:
    """Withdraw a request as its filer (T6)."""
    return policy.withdraw_ocr(case, command.actor, now)
