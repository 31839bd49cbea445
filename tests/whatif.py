"""The check of `whatif` by itself: under the terms in force nothing is different."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from models.queries.whatif import load_extent, recorded_conditions, replay_cases
from policies.recorded_cases import RecordedCase
from policies.whatif import Conditions

MAX_DELAY = timedelta(hours=24)
"""How long a command may have waited (`occurred_at`)."""


def list_differences_without_a_reason(conn: Connection) -> list[str]:
    """Replay every recorded case under the terms and settings in force, and return what differs from the record."""
    conditions = recorded_conditions(conn)
    _, until = load_extent(conn)
    if until is None:
        return []
    return [
        f"order {case.order_id} is {replayed} in a replay, but was {recorded}"
        for case, recorded, replayed in replay_cases(conn, conditions, conditions, until)
        if recorded != replayed and not _may_have_waited_for_other_terms(case, conditions)
    ]


def _may_have_waited_for_other_terms(case: RecordedCase, conditions: Conditions) -> bool:
    # A command that waited was decided under the terms of its commit, of which events have no time.  The first terms
    # that are applied come before all orders.
    changes = [begin for begin, _ in conditions.periods[2:]]
    return any(event.at <= change <= event.at + MAX_DELAY for event in case.events for change in changes)
