"""Tests that the transition table is complete and that every policy keeps to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from policies.statuses import OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, CancelBasis, Role, Status
from policies.verdicts import Code, Granted
from tests.random_cases import random_life
from tools import transitions
from tools.glossary import BASES, CODES, STATUSES
from tools.support_page import DIAGRAM
from tools.transitions import PREVIOUS, TABLE, UNCHANGED, Transition


def find_transition(event: str, source: Status | None, target: Status, role: Role) -> Transition | None:
    for row in TABLE:
        sources = row.sources or (None,)
        if event in row.events and role in row.actors and source in sources and target in targets(row, source):
            return row
    return None


def targets(row: Transition, source: Status | None) -> tuple[Status | str | None, ...]:
    if row.target == UNCHANGED:
        return (source,)
    return OCR_FILEABLE_BY_DEFAULT if row.target == PREVIOUS else (row.target,)


def edges() -> Iterator[tuple[Status, Status]]:
    for row in TABLE:
        for source in row.sources if row.target != UNCHANGED else ():
            for target in targets(row, source):
                if isinstance(target, Status):
                    yield source, target


def reachable(start: Status) -> set[Status]:
    statuses: set[Status] = set()
    steps = set(edges())
    queue = [start]
    while queue:
        current = queue.pop()
        for source, target in steps:
            if source is current and target not in statuses:
                statuses.add(target)
                queue.append(target)
    return statuses


def test_table_has_every_row_of_the_rules_in_order() -> None:
    """T1 to T23."""
    assert [row.name for row in TABLE if row.name.startswith("T")] == [f"T{n}" for n in range(1, 24)]


def test_cancelled_is_final() -> None:
    """T22, R56: no row leads out of CANCELLED."""
    assert reachable(Status.CANCELLED) == set()
    assert all(row.target in (None, UNCHANGED) for row in TABLE if Status.CANCELLED in row.sources[:1])


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.CANCELLED])
def test_every_other_status_can_reach_cancelled(status: Status) -> None:
    """T18, T19 and all ways through a case."""
    assert Status.CANCELLED in reachable(status)


def test_no_event_leaves_the_table() -> None:
    met = {status for edge in edges() for status in edge}
    assert met == set(Status)


@pytest.mark.parametrize("seed", range(150))
def test_every_granted_change_is_in_the_table(seed: int) -> None:
    """T1 to T23: event, source, target and role of every granted verdict of a random life."""
    for step in random_life(seed):
        if isinstance(step.verdict, Granted) and step.verdict.event is not None:
            event = step.verdict.event.type
            source, target = step.before.order.status, step.verdict.case.order.status
            assert find_transition(event, source, target, step.role), (event, source, target, step.role)


def test_random_histories_cover_nearly_every_row() -> None:
    """The previous test needs histories that cover the table."""
    played_rows = set()
    for seed in range(600):
        for step in random_life(seed, moves=40):
            if isinstance(step.verdict, Granted) and step.verdict.event is not None:
                after = step.verdict.case.order
                row = find_transition(step.verdict.event.type, step.before.order.status, after.status, step.role)
                assert row is not None
                played_rows.add(row.description)
    removals_apart = {row.description for row in TABLE if row.events and "removals.approved" not in row.events} - {
        "submit"
    }
    assert removals_apart - played_rows <= {row.description for row in TABLE if row.events == transitions.CANCEL}


def test_the_diagram_shows_what_the_table_says() -> None:
    def node(status: Status) -> str:
        return "open" if status in OPEN_FLOW else str(status)

    arrows = {match.groups() for line in DIAGRAM if (match := re.match(r"(\w+) --> (\w+):", line))}
    allowed = {(node(a), node(b)) for a, b in edges() if node(a) != node(b)}
    through_termination = {(str(s), "CANCELLED") for s in Status}
    assert arrows - allowed == set()
    assert allowed - arrows - through_termination == set()


def test_every_code_has_an_explanation() -> None:
    assert set(CODES) == set(Code)
    assert set(STATUSES) == set(Status)
    assert set(BASES) == set(CancelBasis)
