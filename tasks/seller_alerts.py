"""Commands about a buyer's alerts against a seller (NRS and NSS), and the sweep that unlocks them."""

from __future__ import annotations

from functools import partial
from typing import Literal

from celery import shared_task

from policies import seller_alerts as policy
from policies.cases import AlertKind
from policies.statuses import ALERT_LABELS
from tasks.alerts import declare_alert_removal, run_unlock_sweep
from tasks.cases import declare_case_command
from tasks.command import Comment
from tasks.declarations import BUYER, SELLER
from tasks.sweeps import TaskResult


def _declare_response(kind: AlertKind, example: str) -> None:
    declare_case_command(
        f"{kind.lower()}.respond",
        partial(policy.respond_to_seller_alert, kind=kind),
        "Record the seller's answer and notify the buyer; no date changes (R48).",
        arguments={"comment": Comment},
        example=SELLER | {"comment": example},
        option=f"answer the {ALERT_LABELS[kind]}",
    )


declare_case_command(
    "nrs.file",
    partial(policy.file_seller_alert, kind=AlertKind.NRS, grounds=None),
    "File a non-responding seller alert: the order is unpaid and the seller doesn't answer (T14).",
    arguments={"comment": Comment},
    example=BUYER | {"comment": "no invoice, no answer"},
    option="file a non-responding seller alert",
)

_declare_response(AlertKind.NRS, "I was away, the invoice is out")
declare_alert_removal(AlertKind.NRS)

declare_case_command(
    "nss.file",
    partial(policy.file_seller_alert, kind=AlertKind.NSS),
    "File a non-shipping seller alert: paid, but not shipped, incomplete or not as described (T15).",
    arguments={"grounds": Literal[tuple(policy.NSS_GROUNDS)], "comment": Comment},
    example=BUYER | {"grounds": "NOT_SHIPPED", "comment": "paid two weeks ago, nothing came"},
    option="file a non-shipping seller alert",
)

_declare_response(AlertKind.NSS, "it went out this morning")
declare_alert_removal(AlertKind.NSS)


@shared_task(name="alerts.scan_seller_alerts")
def scan_seller_alerts() -> TaskResult:
    """Unlock every due NRS and NSS alert and notify its buyer once."""
    return run_unlock_sweep("alerts.scan_seller_alerts", [AlertKind.NRS, AlertKind.NSS], "notices.tell_buyer")
