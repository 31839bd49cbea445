"""Commands about non-paying buyer alerts (NPB), and the sweep that unlocks them."""

from __future__ import annotations

from typing import ClassVar

from celery import shared_task

from models import alerts
from models.requests import Answer
from policies import npb as policy
from policies.cases import AlertKind
from tasks.alerts import RemoveAlert, remove_alerts
from tasks.cases import decide_cases
from tasks.command import Comment, OrderCommand
from tasks.sweeps import TaskResult, sweep


class FileNpb(OrderCommand):
    task: ClassVar[str] = "npb.file"
    comment: Comment | None = None


class RespondNpb(OrderCommand):
    task: ClassVar[str] = "npb.respond"
    comment: Comment


class AcceptPenalty(OrderCommand):
    task: ClassVar[str] = "npb.accept_penalty"


class TakeBack(OrderCommand):
    task: ClassVar[str] = "npb.take_back"


class RemoveNpb(RemoveAlert):
    task: ClassVar[str] = "npb.remove"


@shared_task(name=FileNpb.task)
def file(commands: list[FileNpb]) -> list[Answer]:
    """File an alert by the seller: the buyer has not paid (T7)."""
    return decide_cases(commands, lambda c, case, now: policy.file(case, c.actor, c.comment, now))


@shared_task(name=RespondNpb.task)
def respond(commands: list[RespondNpb]) -> list[Answer]:
    """Record the buyer's answer (T8)."""
    return decide_cases(commands, lambda c, case, now: policy.respond(case, c.actor, c.comment, now))


@shared_task(name=AcceptPenalty.task)
def accept_penalty(commands: list[AcceptPenalty]) -> list[Answer]:
    """Accept the strike as the buyer, so that the seller may cancel at once (T9)."""
    return decide_cases(commands, lambda c, case, now: policy.accept_penalty(case, c.actor, now))


@shared_task(name=TakeBack.task)
def take_back(commands: list[TakeBack]) -> list[Answer]:
    """Take back an accepted penalty: the buyer will pay after all (T10)."""
    return decide_cases(commands, lambda c, case, now: policy.take_back(case, c.actor, now))


@shared_task(name=RemoveNpb.task)
def remove(commands: list[RemoveNpb]) -> list[Answer]:
    """Remove the alert as its seller or staff; the order becomes PENDING (T11)."""
    return remove_alerts(commands, AlertKind.NPB)


@shared_task(name="npb.scan_open_alerts")
def scan_open_alerts() -> TaskResult:
    """Unlock every due NPB alert and notify its seller once (T12)."""
    unlocking = alerts.UnlockSweep([AlertKind.NPB])
    return sweep("npb.scan_open_alerts", unlocking, result_key="unlocked")
