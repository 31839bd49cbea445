"""The check of `whatif` by itself: under the terms in force nothing is different."""

from __future__ import annotations

from sqlalchemy import Connection

from models.queries.whatif import load_recorded_conditions, load_recorded_extent, replay_cases


def list_differences_without_a_reason(conn: Connection) -> list[str]:
    """Replay every recorded case under the terms and settings in force, and return what differs from the record."""
    conditions = load_recorded_conditions(conn)
    _, until = load_recorded_extent(conn)
    if until is None:
        return []
    return [
        f"order {case.order_id} is {replayed} in a replay, but was {recorded}"
        for case, recorded, replayed in replay_cases(conn, conditions, conditions, until)
        if recorded != replayed
    ]
