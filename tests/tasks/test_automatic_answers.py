"""Automatic answers to cancel requests on a real database: by the seller's settings and by the terms."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from models.integrity import invariants
from models.ocr import OcrRow
from models.sweeps import SweepRow
from policies.timestamps import format_timestamp
from tasks.automation import AgreementSweep, DeclineSweep
from tasks.sweeps import sweep
from tests.plugins.market import ORDERED, WEEK, Market
from tests.plugins.servers import libpq_url
from tests.tasks.automation import DAY, SECOND, automate, emails, see

ASKED = ORDERED + DAY


def ask(market: Market, order_id: int, **arguments: Any) -> None:
    request = {"reason": "B_MUTUAL", "comment": "ordered twice"} | arguments
    market.done("ocr.file", order_id=order_id, member_id="buyer", **request)


def answers_at(market: Market) -> dict[int, tuple[datetime | None, datetime | None]]:
    return {request.order_id: (request.agrees_at, request.declines_at) for request in market.stored(OcrRow)}


def apply_silence(market: Market, **silence: str) -> None:
    market.done("terms.apply", terms={"OCR_SILENCE": silence}, staff="kim", **{"from": format_timestamp(ORDERED)})


def test_an_early_request_is_agreed_to_at_once(market: Market) -> None:
    """R117, R119, N1, N11, N21: by the outbox consumer, with all effects of the seller's agreement."""
    automate(market, agree_to_requests_within=24)
    market.order(1003)
    market.at(ASKED)
    ask(market, 1003)
    market.simulation.process_outbox()
    shown = see(market, "order", 1003)
    assert (shown["status"], shown["basis"], shown["cancelled_by"]) == ("CANCELLED", "OCR_BUYER", "automation")
    assert (shown["cancelled_at"], shown["ocr"]["state"]) == (format_timestamp(ASKED), "agreed")
    assert shown["lines"][0]["returned"] == 10
    event = shown["timeline"][-1]
    assert (event["event"], event["actor"], event["role"]) == ("orders.cancelled", "automation", "seller")
    assert f"agree_to_requests_within = 24 hours, set on {format_timestamp(ORDERED)}" in event["note"]
    assert emails(market)[:3] == [("ocr_filed", "seller"), ("order_cancelled", "seller"), ("order_cancelled", "buyer")]
    texts = {n["event"]: n["text"] for n in shown["notices"] if n["recipient"] == "seller"}
    assert "Following your settings, we will agree to this request" in texts["ocr_filed"]
    assert "filed within 24 hours of the order date" in " ".join(texts["order_cancelled"].split())
    assert market.strikes() == []
    assert answers_at(market) == {1003: (None, None)}


def test_a_request_is_agreed_to_within_its_hours_only(market: Market) -> None:
    """R117, R114: later requests, packed and paid orders wait; a new setting holds for open requests."""
    automate(market, agree_to_requests_within=24)
    for order_id in (1, 2, 3, 4):
        market.order(order_id)
    market.done("orders.set_status", order_id=2, member_id="seller", status="PACKED")
    market.done("orders.record_payment", order_id=3, payment_status="Received")
    market.at(ASKED)
    for order_id in (2, 3):
        ask(market, order_id)
    market.at(ASKED + SECOND)
    for order_id in (1, 4):
        ask(market, order_id)
    market.simulation.advance(ASKED + DAY)
    assert [market.status(order_id) for order_id in (1, 2, 3, 4)] == ["OCR"] * 4
    assert answers_at(market) == dict.fromkeys((1, 2, 3, 4), (None, None))
    market.done("orders.record_payment", order_id=3, payment_status="None")
    assert market.status(3) == "CANCELLED"
    automate(market, agree_to_requests_within=25, exclude_buyers=["buyer"])
    assert answers_at(market) == dict.fromkeys((1, 2, 3, 4), (None, None))
    market.done("orders.hold_automation", order_id=4, staff="kim", comment="asked by phone")
    automate(market, exclude_buyers=[])
    assert answers_at(market) == {1: (ASKED + SECOND, None)} | dict.fromkeys((2, 3, 4), (None, None))
    market.simulation.advance(ASKED + 2 * DAY)
    assert [market.status(order_id) for order_id in (1, 2, 3, 4)] == ["CANCELLED", "OCR", "CANCELLED", "OCR"]


@pytest.mark.parametrize("hours", [-1, 169, 24.0, "24", True])
def test_hours_out_of_range_change_nothing(market: Market, hours: Any) -> None:
    """R114, R117."""
    answer = market.do("sellers.set_automation", member_id="seller", agree_to_requests_within=hours)
    assert [error["path"] for error in answer["errors"]] == ["agree_to_requests_within"]


def test_silence_is_agreement_where_the_terms_say_so(market: Market) -> None:
    """R123, R119, N11, N16, N21: to the second, announced, and the emails say why."""
    apply_silence(market, agree_after="5d")
    market.order(1)
    market.order(2)
    market.at(ASKED)
    ask(market, 1)
    ask(market, 2)
    due = ASKED + 5 * DAY
    assert answers_at(market) == {1: (due, None), 2: (due, None)}
    (announced,) = see(market, "explain", "order", 1)["automation"]
    assert (announced["act"], announced["at"]) == ("orders.cancel", format_timestamp(due))
    assert (announced["setting"], announced["value"]) == ("OCR_SILENCE", "agree_after 5d")
    forecast = market.rows("SELECT act, at FROM unwind.v_automation_forecast WHERE order_id = 1")
    assert [tuple(row) for row in forecast] == [("orders.cancel", due)]
    market.simulation.advance(due - SECOND)
    market.done("ocr.decline", order_id=2, member_id="seller")
    assert answers_at(market)[2] == (None, None)
    assert market.status(1) == "OCR"
    market.simulation.advance(due)
    assert [market.status(order_id) for order_id in (1, 2)] == ["CANCELLED", "PENDING"]
    shown = see(market, "order", 1)
    assert "under the term OCR_SILENCE = agree_after 5d, in force on" in shown["timeline"][-1]["note"]
    texts = {(n["event"], n["recipient"]): n["text"] for n in shown["notices"]}
    assert "because you did not answer" in " ".join(texts["order_cancelled", "seller"].split())
    assert "did not answer your cancel request within 5 days" in " ".join(texts["order_cancelled", "buyer"].split())
    assert "If you don't answer, the order will be cancelled" in " ".join(texts["ocr_reminder", "seller"].split())


@pytest.mark.parametrize("silence", ["agree_after", "decline_after"])
def test_silence_of_a_seller_with_exclusions_alone(market: Market, silence: str) -> None:
    """R118, R123: an excluded buyer is not touched, although the seller has no other setting."""
    apply_silence(market, **{silence: "2d"})
    automate(market, exclude_buyers=["buyer"])
    for order_id, buyer_id in ((1, "buyer"), (2, "stranger")):
        market.order(order_id, buyer_id=buyer_id)
        market.done("ocr.file", order_id=order_id, member_id=buyer_id, reason="B_MUTUAL", comment="please")
    assert see(market, "explain", "order", 1)["automation"] == []
    market.simulation.advance(ORDERED + WEEK)
    assert [market.status(order_id) == "OCR" for order_id in (1, 2)] == [True, False]
    automate(market, exclude_buyers=[])
    market.simulation.advance(ORDERED + WEEK)
    assert market.status(1) == market.status(2)


def test_silence_is_a_decline_where_the_terms_say_so(market: Market) -> None:
    """R123, N3, N21: the order goes on as before; requests filed under other terms are not answered."""
    market.order(1)
    ask(market, 1)
    market.order(2)
    apply_silence(market, decline_after="5d")
    market.done("orders.set_status", order_id=2, member_id="seller", status="READY")
    market.done("orders.record_payment", order_id=2, payment_status="Received")
    market.at(ASKED)
    ask(market, 2)
    due = ASKED + 5 * DAY
    assert answers_at(market) == {1: (None, None), 2: (None, due)}
    market.simulation.advance(due - SECOND)
    assert market.status(2) == "OCR"
    market.simulation.advance(due)
    assert [market.status(order_id) for order_id in (1, 2)] == ["OCR", "READY"]
    event = see(market, "order", 2)["timeline"][-1]
    assert (event["event"], event["actor"], event["role"]) == ("ocr.declined", "automation", "seller")
    assert emails(market, 2)[-2:] == [("ocr_declined", "buyer"), ("ocr_declined_automatically", "seller")]
    ask(market, 2)
    assert answers_at(market)[2] == (None, due + 5 * DAY)


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("agree", [True, False])
def test_requests_are_answered_in_batches(market: Market, limit: int, agree: bool) -> None:
    """R124, R103: days late and twice over, each once."""
    apply_silence(market, **{"agree_after" if agree else "decline_after": "5d"})
    for order_id in (1, 2, 3):
        market.order(order_id)
        ask(market, order_id)
    market.at(ORDERED + 9 * DAY)
    passes = (AgreementSweep(), DeclineSweep()) if agree else (DeclineSweep(), AgreementSweep())
    answered = [sweep("automation.resolve_requests", each, limit=limit) for each in passes]
    assert answered == [3, 0]
    assert market.done("automation.resolve_requests") == {"agreed": 0, "declined": 0}
    assert {market.status(order_id) for order_id in (1, 2, 3)} == {"CANCELLED" if agree else "PENDING"}
    market.simulation.process_outbox()


def test_a_run_records_all_that_it_answered(market: Market) -> None:
    """R124: agreed and declined, in one run."""
    apply_silence(market, decline_after="5d")
    for order_id, at in ((1, ORDERED), (2, ORDERED + SECOND)):
        market.order(order_id)
        market.at(at)
        ask(market, order_id)
        market.at(ORDERED)
    automate(market, agree_to_requests_within=0)
    market.at(ORDERED + 9 * DAY)
    assert market.done("automation.resolve_requests") == {"agreed": 1, "declined": 1}
    assert market.stored_one(SweepRow, name="automation.resolve_requests").found_ever == 2


def test_a_request_that_cannot_be_answered_stops_no_other(market: Market, database_url: str) -> None:
    """R124: it is passed over, logged and reported."""
    apply_silence(market, agree_after="5d")
    for order_id in (1, 2, 3):
        market.order(order_id)
        ask(market, order_id)
    with psycopg.connect(libpq_url(database_url)) as owner:
        owner.execute("ALTER TABLE unwind.orders ADD CHECK (order_id <> 2 OR status <> 'CANCELLED')")
    market.at(ORDERED + 5 * DAY)
    assert market.done("automation.resolve_requests") == {"agreed": 2, "declined": 0}
    assert [market.status(order_id) for order_id in (1, 2, 3)] == ["CANCELLED", "OCR", "CANCELLED"]
    with market.simulation.database.transaction() as conn:
        violations = invariants.query_invariants(conn, ORDERED + 5 * DAY + timedelta(minutes=2))
    assert violations == {"No automatic act is overdue by more than a minute": ["2"]}
