"""Commands about non-paying buyer alerts (NPB), and the sweep that unlocks them."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task

from policies import npb as policy
from policies.cases import AlertKind
from tasks.alerts import declare_alert_removal, run_unlock_sweep
from tasks.cases import declare_case_command
from tasks.command import Comment, TimestampText
from tasks.declarations import BUYER, SELLER
from tasks.sweeps import TaskResult

declare_case_command(
    "npb.file",
    policy.file_npb,
    "File an alert by the seller: the buyer has not paid (T7).",
    arguments={"comment": (Comment | None, None)},
    example=SELLER | {"comment": "no payment and no word for ten days"},
    option="file a non-paying buyer alert",
)

declare_case_command(
    "npb.respond",
    policy.respond_to_npb,
    "Record the buyer's answer (T8).",
    arguments={"comment": Comment},
    example=BUYER | {"comment": "I pay on Friday"},
    option="answer the non-paying buyer alert",
)


declare_case_command(
    "npb.extend",
    policy.extend_npb,
    "Give the buyer more time, as the seller or staff, while the alert is not unlocked (R122).",
    arguments={"until": TimestampText, "comment": Comment},
    example=SELLER | {"until": "2026-04-20T10:00:00Z", "comment": "paid by the end of the month, as agreed"},
    option="give the buyer more time",
    option_arguments=lambda subject, _actor: (
        {"until": alert.unlocks_at + timedelta(days=1)} if (alert := subject.case.open_alert) else {}
    ),
)

declare_case_command(
    "npb.accept_penalty",
    policy.accept_penalty,
    "Accept the strike as the buyer, so that the seller may cancel at once (T9).",
    example=BUYER,
    option="accept the penalty",
)

declare_case_command(
    "npb.take_back",
    policy.take_back,
    "Take back an accepted penalty: the buyer will pay after all (T10).",
    example=BUYER,
    option="take the accepted penalty back",
)

declare_alert_removal(AlertKind.NPB)


@shared_task(name="npb.scan_open_alerts")
def scan_open_alerts() -> TaskResult:
    """Unlock every due NPB alert and notify its seller once (T12)."""
    return run_unlock_sweep("npb.scan_open_alerts", [AlertKind.NPB], "notices.tell_seller")
