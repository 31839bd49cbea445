"""Commands about non-paying buyer alerts (NPB), and the sweep that unlocks them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from celery import shared_task

from models.stored_answers import Answer
from policies import npb as policy
from policies.cases import Actor, AlertKind, Case
from policies.options import Subject
from policies.verdicts import Verdict
from tasks.alerts import RemoveAlert, remove_alerts, remove_option, run_unlock_sweep
from tasks.cases import case_command
from tasks.command import Comment, OrderCommand, TimestampText
from tasks.declarations import BUYER, SELLER, command_task
from tasks.sweeps import TaskResult


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


class ExtendNpb(OrderCommand):
    task: ClassVar[str] = "npb.extend"
    until: TimestampText
    comment: Comment


class RemoveNpb(RemoveAlert):
    task: ClassVar[str] = "npb.remove"


@case_command(
    FileNpb, example=SELLER | {"comment": "no payment and no word for ten days"}, option="file a non-paying buyer alert"
)
def file_npb(command: FileNpb, case: Case, now: datetime) -> Verdict:
    """File an alert by the seller: the buyer has not paid (T7)."""
    return policy.file_npb(case, command.actor, command.comment, now)


@case_command(RespondNpb, example=BUYER | {"comment": "I pay on Friday"}, option="answer the non-paying buyer alert")
def respond_to_npb(command: RespondNpb, case: Case, now: datetime) -> Verdict:
    """Record the buyer's answer (T8)."""
    return policy.respond_to_npb(case, command.actor, command.comment, now)


def _npb_extend_option_arguments(subject: Subject, _actor: Actor) -> dict[str, Any]:
    alert = subject.case.open_alert
    return {} if alert is None else {"until": alert.unlocks_at + timedelta(days=1)}


@case_command(
    ExtendNpb,
    example=SELLER | {"until": "2026-04-20T10:00:00Z", "comment": "paid by the end of the month, as agreed"},
    option="give the buyer more time",
    option_arguments=_npb_extend_option_arguments,
)
def extend(command: ExtendNpb, case: Case, now: datetime) -> Verdict:
    """Give the buyer more time, as the seller or staff, while the alert is not unlocked (R122)."""
    return policy.extend_npb(case, command.actor, command.until, command.comment, now)


@case_command(AcceptPenalty, example=BUYER, option="accept the penalty")
def accept_penalty(command: AcceptPenalty, case: Case, now: datetime) -> Verdict:
    """Accept the strike as the buyer, so that the seller may cancel at once (T9)."""
    return policy.accept_penalty(case, command.actor, now)


@case_command(TakeBack, example=BUYER, option="take the accepted penalty back")
def take_back(command: TakeBack, case: Case, now: datetime) -> Verdict:
    """Take back an accepted penalty: the buyer will pay after all (T10)."""
    return policy.take_back(case, command.actor, now)


@command_task(RemoveNpb, example=SELLER, option=remove_option(AlertKind.NPB))
def remove_npb(commands: list[RemoveNpb]) -> list[Answer]:
    """Remove the alert as its seller or staff; the order becomes PENDING (T11)."""
    return remove_alerts(commands, AlertKind.NPB)


@shared_task(name="npb.scan_open_alerts")
def scan_open_alerts() -> TaskResult:
    """Unlock every due NPB alert and notify its seller once (T12)."""
    return run_unlock_sweep("npb.scan_open_alerts", [AlertKind.NPB], "notices.tell_seller")
