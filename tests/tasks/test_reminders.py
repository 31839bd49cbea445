"""Reminders are sent at the right time, for the right step, once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

import tasks.reminders
from models import reminders
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.ocr import OcrRow
from tests.plugins.market import FILED, ORDERED, WEEK, Market

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
SORRY = {"reason": "B_OTHER", "comment": "I can explain this in more than twenty letters."}


def notified(market: Market, event: str) -> list[str]:
    return [notice.recipient for notice in market.notices(event=event)]


def scan(market: Market) -> int:
    reminded: int = market.done("reminders.scan")["reminded"]
    return reminded


@pytest.fixture
def requested(market: Market) -> Market:
    market.at(ORDERED).order()
    market.done("ocr.file", order_id=1003, member_id="buyer", **SORRY)
    return market


@pytest.fixture
def unlocked(market: Market) -> Market:
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK).done("npb.scan_open_alerts")
    return market


@pytest.mark.parametrize(("step", "already"), [(2, 0), (5, 1), (10, 2)])
def test_an_unanswered_request_reminds_its_seller_at_each_step_and_once(
    requested: Market, step: int, already: int
) -> None:
    """N16, A13: 2, 5 and 10 days after the request, never a second early."""
    for earlier in (2, 5, 10)[:already]:
        requested.at(ORDERED + earlier * DAY)
        scan(requested)
    for instant, more in [(-SECOND, 0), (0 * SECOND, 1), (SECOND, 1)]:
        requested.at(ORDERED + step * DAY + instant)
        scan(requested)
        scan(requested)
        assert notified(requested, "ocr_reminder") == ["seller"] * (already + more)


def test_after_an_outage_only_the_latest_reminder_is_sent(requested: Market) -> None:
    """A13."""
    requested.at(ORDERED + 45 * DAY)
    assert (scan(requested), scan(requested)) == (1, 0)
    assert notified(requested, "ocr_reminder") == ["seller"]
    (request,) = requested.stored(OcrRow)
    assert (request.reminders, request.remind_at) == (3, None)
    with requested.simulation.database.transaction() as conn:
        assert reminders.list_finally_reminded_orders(conn) == [1003]


def test_an_answered_request_sends_no_reminder(requested: Market) -> None:
    """N16: declined is answered."""
    requested.at(ORDERED + DAY).done("ocr.decline", order_id=1003, member_id="seller")
    requested.at(ORDERED + 45 * DAY)
    assert scan(requested) == 0


def test_a_sellers_own_request_sends_no_reminder(market: Market) -> None:
    """N16 is about what the other side asked."""
    market.at(ORDERED).order()
    market.done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="As agreed.")
    market.at(ORDERED + 45 * DAY)
    assert scan(market) == 0


@pytest.mark.parametrize(("step", "already"), [(3, 0), (10, 1)])
def test_an_unused_unlocked_alert_reminds_its_filer(unlocked: Market, step: int, already: int) -> None:
    """N17: 3 and 10 days after the unlock."""
    since = FILED + WEEK
    for earlier in (3, 10)[:already]:
        unlocked.at(since + earlier * DAY)
        scan(unlocked)
    for instant, more in [(-SECOND, 0), (0 * SECOND, 1), (SECOND, 1)]:
        unlocked.at(since + step * DAY + instant)
        scan(unlocked)
        assert notified(unlocked, "unlock_reminder") == ["seller"] * (already + more)


def test_a_locked_alert_sends_no_reminder(market: Market) -> None:
    """N17: there is nothing to do yet."""
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + 45 * DAY)
    assert scan(market) == 0


def test_an_accepted_penalty_reminds_from_its_acceptance_and_stops_when_taken_back(market: Market) -> None:
    """N17: NPX counts from the acceptance."""
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + DAY).done("npb.accept_penalty", order_id=1003, member_id="buyer")
    market.at(FILED + 4 * DAY - SECOND)
    assert scan(market) == 0
    market.at(FILED + 4 * DAY)
    assert scan(market) == 1
    market.done("npb.take_back", order_id=1003, member_id="buyer")
    market.at(FILED + 11 * DAY)
    assert scan(market) == 0
    assert notified(market, "unlock_reminder") == ["seller"]


def test_a_late_answer_does_not_start_the_reminders_again(unlocked: Market) -> None:
    """N17, A1: the alert stays unlocked since the same instant."""
    since = FILED + WEEK
    unlocked.at(since + 3 * DAY)
    assert scan(unlocked) == 1
    unlocked.done("npb.respond", order_id=1003, member_id="buyer", comment="Sorry, I was away.")
    assert scan(unlocked) == 0
    unlocked.at(since + 10 * DAY)
    assert scan(unlocked) == 1


@pytest.mark.parametrize(("kind", "paid"), [("nrs", False), ("nss", True)])
def test_a_buyers_unlocked_alert_reminds_the_buyer(market: Market, kind: str, paid: bool) -> None:
    """N17: the filer is the buyer."""
    market.at(ORDERED).order()
    if paid:
        market.done("orders.record_payment", order_id=1003, payment_status="Received")
    grounds = {"grounds": "NOT_SHIPPED"} if kind == "nss" else {}
    market.at(FILED).done(f"{kind}.file", order_id=1003, member_id="buyer", comment="Nothing came.", **grounds)
    market.at(FILED + 2 * WEEK).done("alerts.scan_seller_alerts")
    market.at(FILED + 2 * WEEK + 3 * DAY)
    assert scan(market) == 1
    assert notified(market, "unlock_reminder") == ["buyer"]


def test_a_cancelled_order_sends_no_reminder(unlocked: Market) -> None:
    """N17."""
    unlocked.done("orders.cancel", order_id=1003, member_id="seller")
    unlocked.at(FILED + 45 * DAY)
    assert scan(unlocked) == 0


def test_an_acceptance_after_the_unlock_starts_the_steps_again(unlocked: Market) -> None:
    """N17: reminders count from the acceptance, of which the seller was notified."""
    since = FILED + WEEK
    unlocked.at(since + 3 * DAY)
    assert scan(unlocked) == 1
    unlocked.at(since + 4 * DAY).done("npb.accept_penalty", order_id=1003, member_id="buyer")
    unlocked.at(since + 7 * DAY - SECOND)
    assert scan(unlocked) == 0
    unlocked.at(since + 7 * DAY)
    assert scan(unlocked) == 1
    assert notified(unlocked, "unlock_reminder") == ["seller"] * 2


def test_sweeps_at_the_same_time_remind_once(requested: Market, database_url: str) -> None:
    """N16: two beats and several workers change nothing."""
    for number in range(2000, 2020):
        requested.order(number)
        requested.done("ocr.file", order_id=number, member_id="buyer", **SORRY)
    simulation = requested.at(ORDERED + 2 * DAY).simulation
    database = db.connect(database_url, pool_size=4)
    database.clock = simulation.clock
    db.set_database(database)
    barrier = threading.Barrier(4)

    def sweep() -> None:
        barrier.wait()
        retry_on_conflict(tasks.reminders.scan_reminders.run)

    sweeps = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in sweeps:
        thread.start()
    for thread in sweeps:
        thread.join()
    db.set_database(simulation.database)
    database.dispose()
    simulation.process_outbox()
    assert scan(requested) == 0
    assert notified(requested, "ocr_reminder") == ["seller"] * 21


def test_a_case_keeps_the_reminders_of_the_terms_it_was_filed_under(requested: Market) -> None:
    later = {"OCR_REMIND_AFTER": ["1d"]}
    answer = requested.do("terms.apply", terms=later, **{"from": "2026-03-28T11:00:00Z"}, staff="kim")
    assert answer["outcome"] == "done", answer
    requested.at(ORDERED + 2 * DAY - SECOND)
    assert scan(requested) == 0
    requested.order(1004)
    requested.done("ocr.file", order_id=1004, member_id="buyer", **SORRY)
    requested.at(ORDERED + 3 * DAY - SECOND)
    assert scan(requested) == 2


def test_replay_knows_when_the_next_reminder_is_due(requested: Market) -> None:
    with requested.simulation.database.transaction() as conn:
        assert reminders.next_ocr_reminder_at(conn) == ORDERED + 2 * DAY
    requested.simulation.advance(ORDERED + 45 * DAY)
    assert notified(requested, "ocr_reminder") == ["seller"] * 3
