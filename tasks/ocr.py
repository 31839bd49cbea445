"""Commands about order cancel requests (OCR). A seller agrees to one with `orders.cancel`."""

from __future__ import annotations

from typing import ClassVar

from celery import shared_task

from models.requests import Answer
from policies import ocr as policy
from tasks.cases import decide_cases
from tasks.command import CodeText, Comment, OrderCommand


class FileOcr(OrderCommand):
    task: ClassVar[str] = "ocr.file"
    reason: CodeText
    comment: Comment


class DeclineOcr(OrderCommand):
    task: ClassVar[str] = "ocr.decline"


class WithdrawOcr(OrderCommand):
    task: ClassVar[str] = "ocr.withdraw"


@shared_task(name=FileOcr.task)
def file(commands: list[FileOcr]) -> list[Answer]:
    """File a request by either party and notify the other once (T1, T2)."""
    return decide_cases(commands, lambda c, case, now: policy.file(case, c.actor, c.reason, c.comment, now))


@shared_task(name=DeclineOcr.task)
def decline(commands: list[DeclineOcr]) -> list[Answer]:
    """Decline a request as the seller; the order returns to its earlier status (T3)."""
    return decide_cases(commands, lambda c, case, now: policy.decline(case, c.actor, now))


@shared_task(name=WithdrawOcr.task)
def withdraw(commands: list[WithdrawOcr]) -> list[Answer]:
    """Withdraw a request as its filer (T6)."""
    return decide_cases(commands, lambda c, case, now: policy.withdraw(case, c.actor, now))
