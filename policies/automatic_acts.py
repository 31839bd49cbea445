"""What automation does in a seller's name when its time has come (R116, R121)."""

from __future__ import annotations

from datetime import datetime

from policies import automation, cancellation
from policies.cases import Actor, Case
from policies.verdicts import Code, Granted, Refused


def actor_for(case: Case) -> Actor:
    return Actor(case.seller.member_id, automation=True)


def cancel_automatically(case: Case, now: datetime) -> Granted | Refused:
    """Cancel in the seller's name, if it is due (R116, R121)."""
    due, setting = automation.cancels_at(case), case.seller.automation.cancel_after_unlock
    if due is None or setting is None or now < due:
        return Refused(Code.WRONG_STATUS, f"No automatic cancellation of {case.label} is due.", possible_from=due)
    why = automation.describe_setting("cancel_after_unlock", setting)
    return cancellation.cancel(case, actor_for(case), None, f"under the seller's setting {why}", now)
