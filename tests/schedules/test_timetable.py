"""The timetable covers every sweep, and its ticks reach the right queues."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schedules.routes import QUEUES
from schedules.timetable import Entry
from workers.app import APP_BEAT_ENTRIES, app


@pytest.mark.parametrize("entry", APP_BEAT_ENTRIES, ids=lambda entry: entry.name)
def test_a_tick_uses_a_known_queue_and_never_expires(entry: Entry) -> None:
    assert entry.queue in QUEUES
    assert "expires" not in app.conf.beat_schedule[entry.title]["options"]


def test_the_beat_schedule_equals_the_timetable() -> None:
    assert {(s["task"], s["schedule"]) for s in app.conf.beat_schedule.values()} == {
        (e.name, e.every) for e in APP_BEAT_ENTRIES
    }
    assert all(s["options"]["ignore_result"] for s in app.conf.beat_schedule.values())


def test_due_alerts_are_found_within_seconds() -> None:
    assert {e.every <= timedelta(seconds=5) for e in APP_BEAT_ENTRIES if e.name.endswith("alerts")} == {True}


def test_titles_are_unique() -> None:
    assert len({entry.title for entry in APP_BEAT_ENTRIES}) == len(APP_BEAT_ENTRIES)
