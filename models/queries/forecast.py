"""The forecast of unlocks: how many alerts unlock in each hour to come, and which are overdue."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from policies.timestamps import format_timestamp

DEFAULT_DAYS = 14
"""The longest wait of any alert under BrickLink's terms (R26, R49)."""
MAX_DAYS = 366
"""No terms let an alert wait that long."""
MAX_OVERDUE = 20

_UNLOCKS_PER_HOUR = text(
    "SELECT unlocks_hour, kind, count(*) AS n FROM unwind.v_unlock_forecast "
    "WHERE unlocks_at > :now AND unlocks_at <= :until GROUP BY unlocks_hour, kind ORDER BY unlocks_hour, kind"
)
_OVERDUE_UNLOCKS = text(
    "SELECT order_id, kind, seller_id, buyer_id, unlocks_at, count(*) OVER () AS n FROM unwind.v_unlock_forecast "
    "WHERE unlocks_at <= :now ORDER BY unlocks_at, alert_id LIMIT :most"
)
_LATER_UNLOCKS = text("SELECT count(*) FROM unwind.v_unlock_forecast WHERE unlocks_at > :until")


def unlock_forecast(conn: Connection, *, days: int, now: datetime) -> dict[str, Any]:
    """Return `{at, until, overdue, overdue_orders (the oldest few), total, hours: [{hour, npb, nrs, nss, total}],
    later}`.

    Hours are UTC; those without an unlock are left out.  `overdue` counts alerts that are due and not unlocked yet,
    which takes seconds while sweeps run.
    """
    until = now + timedelta(days=days)
    overdue = conn.execute(_OVERDUE_UNLOCKS, {"now": now, "most": MAX_OVERDUE}).all()
    hours: dict[datetime, dict[str, int]] = {}
    for row in conn.execute(_UNLOCKS_PER_HOUR, {"now": now, "until": until}):
        hours.setdefault(row.unlocks_hour, dict.fromkeys(("NPB", "NRS", "NSS"), 0))[row.kind] = row.n
    return {
        "at": format_timestamp(now),
        "until": format_timestamp(until),
        "overdue": overdue[0].n if overdue else 0,
        "overdue_orders": [
            {
                "order_id": row.order_id,
                "kind": row.kind,
                "seller_id": row.seller_id,
                "buyer_id": row.buyer_id,
                "unlocks_at": format_timestamp(row.unlocks_at),
            }
            for row in overdue
        ],
        "total": sum(sum(kinds.values()) for kinds in hours.values()),
        "hours": [
            {"hour": format_timestamp(hour), **{k.lower(): n for k, n in kinds.items()}, "total": sum(kinds.values())}
            for hour, kinds in hours.items()
        ],
        "later": conn.execute(_LATER_UNLOCKS, {"until": until}).scalar_one(),
    }
