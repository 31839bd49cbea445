"""Commands about a buyer's alerts against a seller (NRS and NSS), and the sweep that unlocks them."""

from __future__ import annotations

from typing import ClassVar, Literal

from celery import shared_task

from models import alerts
from models.requests import Answer
from policies import seller_alerts as policy
from policies.cases import AlertKind
from tasks.alerts import RemoveAlert, remove_alerts
from tasks.cases import decide_cases
from tasks.command import Comment, OrderCommand
from tasks.sweeps import TaskResult, sweep


class FileNrs(OrderCommand):
    task: ClassVar[str] = "nrs.file"
    comment: Comment


class FileNss(OrderCommand):
    task: ClassVar[str] = "nss.file"
    grounds: Literal["NOT_SHIPPED", "INCOMPLETE", "NOT_AS_DESCRIBED"]
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


@shared_task(name=FileNrs.task)
def file_nrs(commands: list[FileNrs]) -> list[Answer]:
    """File a non-responding seller alert: the order is unpaid and the seller doesn't answer (T14)."""
    return decide_cases(commands, lambda c, case, now: policy.file(case, AlertKind.NRS, c.actor, None, c.comment, now))


@shared_task(name=FileNss.task)
def file_nss(commands: list[FileNss]) -> list[Answer]:
    """File a non-shipping seller alert: paid, but not shipped, incomplete or not as described (T15)."""
    return decide_cases(
        commands, lambda c, case, now: policy.file(case, AlertKind.NSS, c.actor, c.grounds, c.comment, now)
    )


@shared_task(name=RespondNrs.task)
def respond_nrs(commands: list[RespondNrs]) -> list[Answer]:
    """Record the seller's answer and notify the buyer; no date changes (R48)."""
    return decide_cases(commands, lambda c, case, now: policy.respond(case, AlertKind.NRS, c.actor, c.comment, now))


@shared_task(name=RespondNss.task)
def respond_nss(commands: list[RespondNss]) -> list[Answer]:
    """Record the seller's answer and notify the buyer; no date changes (R48)."""
    return decide_cases(commands, lambda c, case, now: policy.respond(case, AlertKind.NSS, c.actor, c.comment, now))


@shared_task(name=RemoveNrs.task)
def remove_nrs(commands: list[RemoveNrs]) -> list[Answer]:
    """Remove the alert as its buyer or staff; the order becomes PENDING (T16)."""
    return remove_alerts(commands, AlertKind.NRS)


@shared_task(name=RemoveNss.task)
def remove_nss(commands: list[RemoveNss]) -> list[Answer]:
    """Remove the alert as its buyer or staff; the order becomes PENDING (T16)."""
    return remove_alerts(commands, AlertKind.NSS)


@shared_task(name="alerts.scan_seller_alerts")
def scan_seller_alerts() -> TaskResult:
    """Unlock every due NRS and NSS alert and notify its buyer once."""
    unlocking = alerts.UnlockSweep([AlertKind.NRS, AlertKind.NSS])
    return sweep("alerts.scan_seller_alerts", unlocking, result_key="unlocked")
