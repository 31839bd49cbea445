"""Tests of which reminder is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, strategies

from policies import npb
from policies.cases import AlertState
from policies.reminders import due_reminder_step, first_reminder_at, reminder_start
from policies.terms import Terms
from tests.builders import BUYER, DAY, ORDERED, SECOND, SELLER, a_case, granted

STEPS = (2 * DAY, 5 * DAY, 10 * DAY)
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("passed", "already", "number", "next_after"),
    [
        (2 * DAY - SECOND, 0, None, None),
        (2 * DAY, 0, 1, 5 * DAY),
        (2 * DAY, 1, None, None),
        (5 * DAY - SECOND, 1, None, None),
        (5 * DAY, 1, 2, 10 * DAY),
        (6 * DAY, 0, 2, 10 * DAY),
        (10 * DAY, 2, 3, None),
        (400 * DAY, 0, 3, None),
        (400 * DAY, 3, None, None),
    ],
)
def test_latest_due_step_that_was_not_sent(
    passed: timedelta, already: int, number: int | None, next_after: timedelta | None
) -> None:
    """A13, N16: boundary inclusive, earlier steps overtaken."""
    step = due_reminder_step(ORDERED, STEPS, already, ORDERED + passed)
    if number is None:
        assert step is None
    else:
        assert step is not None
        assert (step.number, step.after) == (number, STEPS[number - 1])
        assert step.next_at == (ORDERED + next_after if next_after else None)


@given(
    strategies.lists(strategies.integers(1, 100), min_size=1, max_size=6, unique=True).map(sorted),
    strategies.lists(strategies.integers(0, 200), max_size=30).map(sorted),
)
def test_each_step_is_sent_at_most_once_and_the_last_always(days: list[int], sweep_days: list[int]) -> None:
    """A13: with any sequence of sweeps."""
    steps = [day * DAY for day in days]
    sent: list[int] = []
    for sweep_day in sweep_days:
        step = due_reminder_step(ORDERED, steps, sent[-1] if sent else 0, ORDERED + sweep_day * DAY)
        if step is not None:
            sent.append(step.number)
    assert sent == sorted(set(sent))
    assert (bool(sent) and sent[-1] == len(steps)) == bool(sweep_days and sweep_days[-1] >= days[-1])


def test_filer_can_act_since_unlock_or_acceptance_while_the_alert_is_open() -> None:
    """N17: NPX counts from the acceptance."""
    filed = granted(npb.file_npb(a_case(ordered=ORDERED - WEEK), SELLER, None, ORDERED))
    assert filed.alert is not None
    assert reminder_start(filed.alert) is None
    unlocked = replace(filed.alert, unlocked_at=ORDERED + WEEK)
    assert reminder_start(unlocked) == ORDERED + WEEK
    accepted = granted(npb.accept_penalty(replace(filed, alert=unlocked), BUYER, ORDERED + 9 * DAY))
    assert accepted.alert is not None
    assert reminder_start(accepted.alert) == ORDERED + 9 * DAY
    back = granted(npb.take_back(accepted, BUYER, ORDERED + 10 * DAY))
    assert back.alert is not None
    assert reminder_start(back.alert) == ORDERED + WEEK
    assert reminder_start(replace(unlocked, state=AlertState.REMOVED)) is None


def test_relock_ends_the_time_to_act() -> None:
    """A1: with `relock` no reminder is sent for what is no longer possible."""
    terms = Terms(npb_late_response="relock")
    filed = granted(npb.file_npb(a_case(ordered=ORDERED - WEEK, terms=terms), SELLER, None, ORDERED))
    assert filed.alert is not None
    unlocked = replace(filed, alert=replace(filed.alert, unlocked_at=ORDERED + WEEK))
    late = granted(npb.respond_to_npb(unlocked, BUYER, "Sorry.", ORDERED + 8 * DAY))
    assert late.alert is not None
    assert reminder_start(late.alert) is None


def test_terms_without_steps_remind_nobody() -> None:
    assert first_reminder_at(ORDERED, ()) is None
    assert first_reminder_at(None, STEPS) is None
    assert due_reminder_step(ORDERED, (), 0, ORDERED + 400 * DAY) is None
