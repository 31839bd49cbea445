"""Recorded cases (the events of one order), and how each ended, for `whatif`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from policies.cases import AlertKind, AlertState
from policies.fees import ZERO
from policies.statuses import Role

read_time = datetime.fromisoformat
"""Parses timestamps written by the database or `format_timestamp`, ten times as fast as `parse_timestamp`."""


class RecordedEvent(NamedTuple):
    type: str
    at: datetime
    actor: str
    role: str
    to_status: str | None
    changes: Mapping[str, Any]


class AlertOutcome(NamedTuple):
    """An alert that was filed; `unlocked_at` is the time from which it let its filer cancel, if it did."""

    kind: str
    filed_at: datetime
    unlocked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """The result of a case.  `fee` is what the order costs its seller in the end, `fee_month` where it is charged."""

    alerts: tuple[AlertOutcome, ...] = ()
    cancelled_at: datetime | None = None
    basis: str | None = None
    strike: Role | None = None
    fee: Decimal = ZERO
    fee_month: str | None = None


class RecordedCase(NamedTuple):
    order_id: int
    buyer_id: str
    seller_id: str
    usd_rate: Decimal
    events: Sequence[RecordedEvent]


def recorded_outcome(case: RecordedCase, until: datetime) -> CaseOutcome:
    """Return the result of the case from its events alone, without a policy."""
    order: dict[str, Any] = {}
    filed: list[dict[str, Any]] = []
    credit = ZERO
    for event in case.events:
        order |= event.changes.get("order", {})
        if (part := event.changes.get("alert")) is not None:
            if "kind" in part:
                filed.append(dict(part))
            else:
                filed[-1] |= part
        if event.type == "orders.cancelled":
            credit = Decimal(event.changes["fee"]["amount"])
    struck = filed and filed[-1]["state"] == AlertState.COMPLETED
    return CaseOutcome(
        alerts=tuple(
            AlertOutcome(
                alert["kind"],
                read_time(alert["filed_at"]),
                unlocked_at(read_optional_time(alert["unlocks_at"]), read_optional_time(alert["closed_at"]), until),
            )
            for alert in filed
        ),
        cancelled_at=read_optional_time(order["cancelled_at"]),
        basis=order["basis"],
        strike=accused_role(filed[-1]["kind"]) if struck else None,
        fee=Decimal(order["fee"]) + credit,
        fee_month=order["fee_month"],
    )


def unlocked_at(unlocks_at: datetime | None, closed_at: datetime | None, until: datetime) -> datetime | None:
    return unlocks_at if unlocks_at is not None and unlocks_at <= min(closed_at or until, until) else None


def accused_role(kind: str) -> Role:
    return Role.BUYER if kind == AlertKind.NPB else Role.SELLER


def read_optional_time(written: str | None) -> datetime | None:
    return None if written is None else read_time(written)
