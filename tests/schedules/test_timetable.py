"""Does the timetable look at everything, in its own queue, and let stale ticks go?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from schedules.routes import QUEUES
from schedules.timetable import TIMETABLE, Entry
from workers.app import app


@pytest.mark.parametrize("entry", TIMETABLE, ids=lambda entry: entry.task)
def test_a_tick_goes_through_a_queue_that_is_read_and_is_never_stale_by_a_clock(entry: Entry) -> None:
    """A worker whose clock, or whose beat's clock, is far off takes them all the same (F34)."""
    assert entry.queue in QUEUES
    assert "expires" not in app.conf.beat_schedule[entry.title]["options"]


def test_beat_has_the_timetable_and_nothing_else() -> None:
    """One timetable; nobody listens to the result of a tick."""
    assert {(s["task"], s["schedule"]) for s in app.conf.beat_schedule.values()} == {
        (e.task, e.every) for e in TIMETABLE
    }
    assert all(s["options"]["ignore_result"] for s in app.conf.beat_schedule.values())


def test_matured_alerts_are_found_within_seconds() -> None:
    """P3: the cadence is what a seller may wait beyond the instant."""
    assert {e.every <= timedelta(seconds=5) for e in TIMETABLE if e.task.endswith("alerts")} == {True}


def test_no_two_entries_have_one_title() -> None:
    """Beat keeps its memory by title."""
    assert len({entry.title for entry in TIMETABLE}) == len(TIMETABLE)
