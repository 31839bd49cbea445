"""Commands about a buyer's alerts against a seller (NRS and NSS), and the sweep that unlocks them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from celery import shared_task

from models.stored_answers import Answer
from policies import seller_alerts as policy
from policies.cases import AlertKind, Case
from policies.verdicts import Verdict
from tasks.alerts import RemoveAlert, remove_alerts, remove_option, run_unlock_sweep
from tasks.cases import case_command
from tasks.command import Comment, OrderCommand
from tasks.declarations import BUYER, SELLER, command_task
from tasks.sweeps import TaskResult


class FileNrs(OrderCommand):
    task: ClassVar[str] = "nrs.file"
    comment: Comment


class FileNss(OrderCommand):
    task: ClassVar[str] = "nss.file"
    grounds: Literal[tuple(policy.NSS_GROUNDS)]  # type: ignore[valid-type]
    comment: Comment


class RespondNrs(OrderCommand):
    task: ClassVar[str] = "nrs.respond"
    comment: Comment


class RespondNss(OrderCommand):
    task: ClassVar[str] = "nss.respond"
    comment: Comment


class RemoveNrs(RemoveAlert):
    task: ClassVar[str] = "nrs.remove"


class RemoveNss(RemoveAlert):
    task: ClassVar[str] = "nss.remove"


@case_command(
    FileNrs, example=BUYER | {"comment": "no invoice, no answer"}, option="file a non-responding seller alert"
)
def file_nrs(command: FileNrs, case: Case, now: datetime) -> Verdict:
    """File a non-responding seller alert: the order is unpaid and the seller doesn't answer (T14)."""
    return policy.file_seller_alert(case, AlertKind.NRS, command.actor, None, command.comment, now)


@case_command(
    RespondNrs,
    example=SELLER | {"comment": "I was away, the invoice is out"},
    option="answer the non-responding seller alert",
)
def respond_nrs(command: RespondNrs, case: Case, now: datetime) -> Verdict:
    """Record the seller's answer and notify the buyer; no date changes (R48)."""
    return policy.respond_to_seller_alert(case, AlertKind.NRS, command.actor, command.comment, now)


@command_task(RemoveNrs, example=BUYER, option=remove_option(AlertKind.NRS))
def remove_nrs(commands: list[RemoveNrs]) -> list[Answer]:
    """Remove the alert as its buyer or staff; the order becomes PENDING (T16)."""
    return remove_alerts(commands, AlertKind.NRS)


@case_command(
    FileNss,
    example=BUYER | {"grounds": "NOT_SHIPPED", "comment": "paid two weeks ago, nothing came"},
    option="file a non-shipping seller alert",
)
def file_nss(command: FileNss, case: Case, now: datetime) -> Verdict:
    """File a non-shipping seller alert: paid, but not shipped, incomplete or not as described (T15)."""
    return policy.file_seller_alert(case, AlertKind.NSS, command.actor, command.grounds, command.comment, now)


@case_command(
    RespondNss, example=SELLER | {"comment": "it went out this morning"}, option="answer the non-shipping seller alert"
)
def respond_nss(command: RespondNss, case: Case, now: datetime) -> Verdict:
    """Record the seller's answer and notify the buyer; no date changes (R48)."""
    return policy.respond_to_seller_alert(case, AlertKind.NSS, command.actor, command.comment, now)


@command_task(RemoveNss, example=BUYER, option=remove_option(AlertKind.NSS))
def remove_nss(commands: list[RemoveNss]) -> list[Answer]:
    """Remove the alert as its buyer or staff; the order becomes PENDING (T16)."""
    return remove_alerts(commands, AlertKind.NSS)


@shared_task(name="alerts.scan_seller_alerts")
def scan_seller_alerts() -> TaskResult:
    """Unlock every due NRS and NSS alert and notify its buyer once."""
    return run_unlock_sweep("alerts.scan_seller_alerts", [AlertKind.NRS, AlertKind.NSS], "notices.tell_buyer")
