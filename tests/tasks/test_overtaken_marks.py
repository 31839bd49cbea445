"""Commands take effect at their own time, whether a sweep marked the alert before or after them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from models.alerts import AlertRow
from models.db import database as db
from models.integrity.invariants import query_invariants
from models.notices import NoticeRow
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.servers import libpq_url

SECOND = timedelta(seconds=1)
DUE = FILED + WEEK
LATER = DUE + timedelta(minutes=10)
INTERFACES = ("message", "sql")
MESSAGE_AND_LONG_SQL = ("message", pytest.param("sql", marks=pytest.mark.long))
ORDERINGS = ("sweep first", "command first")


@pytest.fixture
def accused(market: Market) -> Market:
    """An order with an NPB alert, filed a week before `DUE`."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    return market


def play(market: Market, database_url: str, interface: str, ordering: str, at: datetime, task: str, **more: Any) -> Any:
    if ordering == "sweep first":
        market.simulation.advance(max(DUE, at))
    market.at(LATER)
    answer = take(market, database_url, interface, at, task, **more)
    market.simulation.advance(LATER + SECOND)
    return answer


def take(market: Market, database_url: str, interface: str, at: datetime, task: str, **more: Any) -> Any:
    if interface == "message":
        return market.do(task, order_id=1003, occurred_at=format_timestamp(at), **more)
    request_id = f"{task}-{format_timestamp(at)}".replace("+", "-")
    with psycopg.connect(libpq_url(database_url), autocommit=True) as caller:
        payload = json.dumps(more if "orders" in more else {"order_id": 1003, **more})
        caller.execute("SELECT unwind.submit_command(%s, %s::jsonb, %s)", [task, payload, request_id])
        caller.execute(
            "UPDATE unwind.submissions SET submitted_at = %s, due_at = %s WHERE request_id = %s", [at, at, request_id]
        )
        market.do("submissions.drain")
        (answer,) = caller.execute(
            "SELECT answer FROM unwind.command_answers WHERE request_id = %s", [request_id]
        ).fetchone() or (None,)
    return answer


def alert(market: Market) -> AlertRow:
    return market.stored_one(AlertRow)


def assert_invariants_hold(market: Market) -> None:
    with db.current_database().transaction() as conn:
        assert query_invariants(conn, market.simulation.clock.instant) == {}


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize(
    ("offset", "unlocks", "marked"), [(-SECOND, FILED + 2 * WEEK, False), (0 * SECOND, DUE, True), (SECOND, DUE, True)]
)
def test_an_answer_takes_effect_at_its_own_second_in_either_order(
    accused: Market,
    database_url: str,
    interface: str,
    ordering: str,
    offset: timedelta,
    unlocks: datetime,
    marked: bool,
) -> None:
    """R27 to R29, A2: an answer is in time even if the sweep marked the alert before it was processed."""
    answer = play(
        accused, database_url, interface, ordering, DUE + offset, "npb.respond", member_id="buyer", comment="Paid today"
    )
    assert (answer["outcome"], answer["effects"]) == ("done", {"unlocks_at": format_timestamp(unlocks)})
    after = alert(accused)
    assert (after.responded_at, after.unlocks_at, after.unlocked_at is not None) == (DUE + offset, unlocks, marked)
    assert (after.remind_at is not None) == marked
    cancel = accused.at(LATER + 2 * SECOND).do("orders.cancel", order_id=1003, member_id="seller")
    assert cancel["code"] == (None if marked else "TOO_EARLY")
    assert len(accused.strikes()) == marked
    assert_invariants_hold(accused)


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_seller_is_notified_of_a_reverted_unlock_and_of_the_next(
    accused: Market, database_url: str, interface: str
) -> None:
    """N7, then N5 with the new date, then N7 again at that date."""
    play(
        accused, database_url, interface, "sweep first", DUE - SECOND, "npb.respond", member_id="buyer", comment="Soon"
    )
    accused.simulation.advance(FILED + 2 * WEEK)
    notices = accused.notices(NoticeRow.event.startswith("npb"), recipient="seller")
    assert [notice.event for notice in notices] == ["npb_unlocked", "npb_responded", "npb_unlocked"]
    text = json.dumps(notices[1].email)
    assert "you have to wait again" in text
    assert "18 April 2026, 10:00" in text
    types = [event.type for event in accused.events(order_id=1003)]
    assert types[2:] == ["npb.unlocked", "npb.responded", "npb.unlocked"]
    assert alert(accused).unlocked_at == FILED + 2 * WEEK
    assert_invariants_hold(accused)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("interface", MESSAGE_AND_LONG_SQL)
@pytest.mark.parametrize("offset", [-SECOND, 0 * SECOND, SECOND])
def test_a_cancellation_is_judged_at_its_own_second(
    accused: Market, database_url: str, interface: str, ordering: str, offset: timedelta
) -> None:
    answer = play(accused, database_url, interface, ordering, DUE + offset, "orders.cancel", member_id="seller")
    assert answer["code"] == ("TOO_EARLY" if offset < 0 * SECOND else None)
    if answer["outcome"] == "done":
        assert accused.stored_order().cancelled_at == DUE + offset
    assert_invariants_hold(accused)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("offset", [-SECOND, 0 * SECOND, SECOND])
def test_each_of_many_cancellations_by_sql_counts_from_the_insert(
    accused: Market, database_url: str, ordering: str, offset: timedelta
) -> None:
    if ordering == "sweep first":
        accused.simulation.advance(max(DUE, DUE + offset))
    accused.at(LATER)
    many = [{"order_id": 1003, "member_id": "seller"}]
    answer = take(accused, database_url, "sql", DUE + offset, "orders.cancel_many", orders=many)
    (first_answer,) = answer["effects"]["answers"]
    assert first_answer["code"] == ("TOO_EARLY" if offset < 0 * SECOND else None)
    accused.simulation.advance(LATER + SECOND)
    assert_invariants_hold(accused)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("interface", MESSAGE_AND_LONG_SQL)
@pytest.mark.parametrize("offset", [-SECOND, 0 * SECOND, SECOND])
@pytest.mark.parametrize(
    ("task", "arguments", "status"),
    [
        ("npb.accept_penalty", {"member_id": "buyer"}, "NPX"),
        ("npb.remove", {"member_id": "seller"}, "PENDING"),
        ("npb.remove", {"staff": "kim", "comment": "Proven"}, "PENDING"),
    ],
    ids=["accept", "remove", "staff removes"],
)
def test_a_command_that_ends_the_wait_reverts_a_later_unlock(
    accused: Market,
    database_url: str,
    interface: str,
    ordering: str,
    offset: timedelta,
    task: str,
    arguments: dict[str, Any],
    status: str,
) -> None:
    answer = play(accused, database_url, interface, ordering, DUE + offset, task, **arguments)
    assert answer["outcome"] == "done"
    was_marked = ordering == "sweep first" and offset >= 0 * SECOND
    assert (accused.status(1003), alert(accused).unlocked_at) == (status, DUE if was_marked else None)
    assert_invariants_hold(accused)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize(("offset", "unlocks"), [(-SECOND, FILED + 2 * WEEK), (0 * SECOND, DUE), (SECOND, DUE)])
def test_taking_the_penalty_back_takes_effect_at_its_own_second(
    accused: Market, database_url: str, interface: str, offset: timedelta, unlocks: datetime
) -> None:
    """R34: an answer at that time, even if a sweep ran before it was processed."""
    accused.simulation.advance(DUE + 2 * SECOND)
    accused.at(LATER)
    accept = take(accused, database_url, interface, DUE - 2 * SECOND, "npb.accept_penalty", member_id="buyer")
    back = take(accused, database_url, interface, DUE + offset, "npb.take_back", member_id="buyer")
    assert (accept["outcome"], back["effects"]["unlocks_at"]) == ("done", format_timestamp(unlocks))
    accused.simulation.advance(LATER + SECOND)
    after = alert(accused)
    assert (after.unlocks_at, after.unlocked_at) == (unlocks, None if unlocks > LATER else LATER)
    assert_invariants_hold(accused)


@pytest.mark.parametrize("interface", INTERFACES)
def test_an_event_that_moves_no_date_keeps_the_unlock(accused: Market, database_url: str, interface: str) -> None:
    answer = play(
        accused, database_url, interface, "sweep first", DUE - SECOND, "removals.request",
        member_id="buyer", lines=[{"line_no": 1, "quantity": 1}],
    )  # fmt: skip
    assert answer["outcome"] == "refused"
    assert alert(accused).unlocked_at == DUE
    assert accused.count(NoticeRow, event="npb_unlocked") == 1
    assert_invariants_hold(accused)


def test_an_answer_by_sql_is_in_time_however_long_the_workers_were_away(accused: Market, database_url: str) -> None:
    accused.simulation.advance(DUE)
    accused.at(DUE + timedelta(days=2))
    take(accused, database_url, "sql", DUE - SECOND, "npb.respond", member_id="buyer", comment="I pay today")
    after = alert(accused)
    assert (after.responded_at, after.unlocks_at, after.unlocked_at) == (DUE - SECOND, FILED + 2 * WEEK, None)
    assert_invariants_hold(accused)


def test_a_command_is_never_earlier_than_another_partys_command(accused: Market, database_url: str) -> None:
    accused.at(DUE).done("npb.respond", order_id=1003, member_id="buyer", comment="Now")
    accused.at(LATER)
    answer = take(accused, database_url, "message", DUE - SECOND, "npb.remove", member_id="seller")
    assert [error["path"] for error in answer["errors"]] == ["occurred_at"]
    take(accused, database_url, "sql", DUE - SECOND, "npb.remove", member_id="seller")
    assert alert(accused).closed_at == DUE
    assert_invariants_hold(accused)
