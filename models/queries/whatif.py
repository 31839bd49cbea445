"""The replay of all recorded cases under other terms, one case at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection, func, select, text

from models.events import EventRow
from models.terms import load_terms
from policies.automation_settings import settings_from_json
from policies.recorded_cases import RecordedCase, RecordedEvent
from policies.terms import DEFAULT_TERMS
from policies.timestamps import parse_stored_timestamp
from policies.whatif import CaseOutcome, CaseReplay, WhatIfConditions, WhatIfMemberChange, outcome_without_replay

_MEMBER_CHANGE_TYPES = ("members.terminated", "members.reinstated", "sellers.automation_set")
_MEMBER_CHANGES = (
    select(EventRow.member_id, EventRow.at, EventRow.type, EventRow.changes["automation"].label("automation"))
    .where(EventRow.member_id.is_not(None), EventRow.type.in_(_MEMBER_CHANGE_TYPES))
    .order_by(EventRow.event_id)
)
_CASES = text("""
    SELECT o.order_id, o.buyer_id, o.seller_id, o.usd_rate, (
        SELECT CAST(json_agg(json_build_array(
            e.type, e.at, e.actor, e.role, e.to_status, e.changes - 'returned') ORDER BY e.seq) AS text)
        FROM unwind.events AS e WHERE e.order_id = o.order_id
    ) AS events
    FROM unwind.orders AS o ORDER BY o.order_id
""")
FETCH_SIZE = 1000
WhatIfDifference = tuple[RecordedCase, CaseOutcome, CaseOutcome]
"""A case, how it ended, and how it would have ended."""


def load_recorded_extent(conn: Connection) -> tuple[int, datetime | None]:
    """Return the number of events of orders, and the time of the last event: that far the record goes."""
    events, until = conn.execute(select(func.count(EventRow.order_id), func.max(EventRow.at))).one()
    return events, until


def load_member_changes(conn: Connection) -> dict[str, list[WhatIfMemberChange]]:
    changes: dict[str, list[WhatIfMemberChange]] = {}
    for member_id, at, type_, automation in conn.execute(_MEMBER_CHANGES):
        if type_ == "sellers.automation_set":
            change = WhatIfMemberChange(at, automation=settings_from_json(automation))
        else:
            change = WhatIfMemberChange(at, terminated=type_ == "members.terminated")
        changes.setdefault(member_id, []).append(change)
    return changes


def load_recorded_conditions(conn: Connection) -> WhatIfConditions:
    return WhatIfConditions(
        [(datetime.min.replace(tzinfo=UTC), DEFAULT_TERMS), *((d.valid_from, d.terms) for d in load_terms(conn))]
    )


def replay_cases(
    conn: Connection, recorded: WhatIfConditions, tried: WhatIfConditions, until: datetime
) -> Iterator[WhatIfDifference]:
    members = load_member_changes(conn)
    rows = conn.execution_options(yield_per=FETCH_SIZE).execute(_CASES)
    for order_id, buyer_id, seller_id, usd_rate, written in rows:
        events = [RecordedEvent(type_, parse_stored_timestamp(at), *rest) for type_, at, *rest in orjson.loads(written)]
        case = RecordedCase(order_id, buyer_id, seller_id, usd_rate, events)
        yield case, outcome_without_replay(case, until), CaseReplay(case, members, tried, recorded).run(until)
