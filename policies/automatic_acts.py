"""What automation does in a seller's name when its time has come (R115, R116, R121)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from policies import automation, cancellation, npb
from policies.cases import Actor, Case
from policies.notices import notify_party
from policies.statuses import Role
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Granted, Refused


def actor_for(case: Case) -> Actor:
    return Actor(case.seller.member_id, automation=True)


def file_automatically(case: Case, now: datetime) -> Granted | Refused:
    """File an NPB in the seller's name, if it is due, and tell the seller (R115, N21)."""
    due, setting = automation.files_npb_at(case), case.seller.automation.file_npb_after
    if due is None or setting is None or now < due:
        return Refused(Code.WRONG_STATUS, f"No automatic alert for {case.label} is due.", possible_from=due)
    verdict = npb.file_npb(case, actor_for(case), None, now)
    if isinstance(verdict, Refused):
        return verdict
    (event,) = verdict.events
    why = f"Filed by automation under the seller's setting {automation.describe_setting('file_npb_after', setting)}."
    alert = verdict.case.alert
    assert alert is not None
    notice = notify_party(
        verdict.case,
        Role.SELLER,
        "npb_filed_automatically",
        unlocks_at=format_timestamp(alert.unlocks_at),
        automation=automation.setting_facts("file_npb_after", setting),
        **automation.cancels_at_fact(verdict.case),
    )
    return replace(verdict, events=(replace(event, note=f"{event.note} {why}"),), messages=(*verdict.messages, notice))


def cancel_automatically(case: Case, now: datetime) -> Granted | Refused:
    """Cancel in the seller's name, if it is due (R116, R121)."""
    due, setting = automation.cancels_at(case), case.seller.automation.cancel_after_unlock
    if due is None or setting is None or now < due:
        return Refused(Code.WRONG_STATUS, f"No automatic cancellation of {case.label} is due.", possible_from=due)
    why = automation.describe_setting("cancel_after_unlock", setting)
    return cancellation.cancel(case, actor_for(case), None, f"under the seller's setting {why}", now)
