"""The forecast: alerts unlocking in each hour to come, overdue ones, and everything else with a date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, text

from models.db.row_mapping import map_row_to_json
from models.db.selects import count_where
from models.ddl.views import V_UNLOCK_FORECAST
from models.terms import load_terms
from policies.bills import due_on, issued_on, next_month, previous_month, terms_of_billing_month
from policies.cases import AlertKind
from policies.timestamps import format_timestamp

DEFAULT_DAYS = 14
"""The longest wait of any alert under BrickLink's terms (R26, R49)."""
MAX_DAYS = 366
"""No terms let an alert wait that long."""
MAX_OVERDUE = 20

_UNLOCK = V_UNLOCK_FORECAST.as_table().c
_ACTS_TO_COME = text("""
    SELECT * FROM (
        SELECT lower(kind) || '.unlock' AS act, order_id, seller_id, buyer_id, unlocks_at AS at, filed_at AS since
        FROM unwind.v_unlock_forecast
        UNION ALL
        SELECT f.act, f.order_id, f.seller_id, f.buyer_id, f.at,
            CASE f.act WHEN 'npb.file' THEN o.submitted_at ELSE coalesce(a.filed_at, r.filed_at) END
        FROM unwind.v_automation_forecast AS f JOIN unwind.orders AS o USING (order_id)
        LEFT JOIN unwind.alerts AS a ON a.order_id = f.order_id AND a.state = 'open'
        LEFT JOIN unwind.ocrs AS r ON r.order_id = f.order_id AND r.state = 'open'
    ) AS acts
    WHERE at > :now AND at <= :until ORDER BY at, order_id, act
""")


def unlock_forecast(conn: Connection, *, days: int, now: datetime) -> dict[str, Any]:
    """Return `{at, until, overdue, overdue_orders (the oldest few), total, hours: [{hour, npb, nrs, nss, total}],
    later}`.

    Hours are UTC; those without an unlock are left out.  `overdue` counts alerts that are due and not unlocked yet,
    which takes seconds while sweeps run.
    """
    until = now + timedelta(days=days)
    overdue = (
        select(_UNLOCK.order_id, _UNLOCK.kind, _UNLOCK.seller_id, _UNLOCK.buyer_id, _UNLOCK.unlocks_at)
        .where(_UNLOCK.unlocks_at <= now)
        .order_by(_UNLOCK.unlocks_at, _UNLOCK.alert_id)
    )
    per_hour = (
        select(_UNLOCK.unlocks_hour, _UNLOCK.kind, func.count().label("n"))
        .where(_UNLOCK.unlocks_at > now, _UNLOCK.unlocks_at <= until)
        .group_by(_UNLOCK.unlocks_hour, _UNLOCK.kind)
        .order_by(_UNLOCK.unlocks_hour, _UNLOCK.kind)
    )
    hours: dict[datetime, dict[AlertKind, int]] = {}
    for row in conn.execute(per_hour):
        hours.setdefault(row.unlocks_hour, dict.fromkeys(AlertKind, 0))[row.kind] = row.n
    return {
        "at": format_timestamp(now),
        "until": format_timestamp(until),
        "overdue": conn.scalar(count_where(_UNLOCK.unlocks_at <= now)),
        "overdue_orders": [map_row_to_json(row) for row in conn.execute(overdue.limit(MAX_OVERDUE))],
        "total": sum(sum(kinds.values()) for kinds in hours.values()),
        "hours": [
            {"hour": format_timestamp(hour), **{k.lower(): n for k, n in kinds.items()}, "total": sum(kinds.values())}
            for hour, kinds in hours.items()
        ],
        "later": conn.scalar(count_where(_UNLOCK.unlocks_at > until)),
    }


def list_forecast_acts(conn: Connection, *, days: int, now: datetime) -> Iterator[Row[Any]]:
    """Return the unlocks and all automatic acts to come, earliest first.

    `act` is `npb.unlock`, `nrs.unlock`, `nss.unlock`, `npb.file`, `ocr.decline` or `orders.cancel`.  `since` never
    changes: when the alert or request was filed, or when an order with neither was submitted.
    """
    values = {"now": now, "until": now + timedelta(days=days)}
    yield from conn.execution_options(yield_per=1000).execute(_ACTS_TO_COME, values)


def list_forecast_bill_days(conn: Connection, *, days: int, now: datetime) -> list[tuple[date, str, date]]:
    terms_history = load_terms(conn)
    zone = terms_history.at(now).zone
    today, last_day = now.astimezone(zone).date(), (now + timedelta(days=days)).astimezone(zone).date()
    month = previous_month(previous_month(today.replace(day=1)))
    bill_days = []
    while month <= last_day:
        terms = terms_of_billing_month(terms_history, month)
        bill_days += [(issued_on(month, terms), "issued", month), (due_on(month, terms), "due", month)]
        month = next_month(month)
    return sorted(entry for entry in bill_days if today <= entry[0] <= last_day)
