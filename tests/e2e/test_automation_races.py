"""Tests that a sweep of the automation and a concurrent command never both take effect, or in the wrong order (R121).

12 rounds of each race in the everyday suite, 200 in the long tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.members import StrikeRow
from models.stock_moves import StockMoveRow
from tests.e2e.concurrency import Command
from tests.e2e.race_market import RaceMarket, codes


@pytest.fixture(params=[12, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def rounds(request: pytest.FixtureRequest) -> range:
    return range(1, request.param + 1)


CANCEL_SWEEP: Command = ("automation.cancel", {})
ANSWER_SWEEP: Command = ("automation.resolve_requests", {})
FILING_SWEEP: Command = ("automation.file_alerts", {})


def order_of_own_seller(race_market: RaceMarket, number: int) -> str:
    """An order of a seller of its own, so that one round makes no other's order due."""
    seller = f"seller-{number}"
    race_market.days_ago(30).do("members.record", member_id=seller, handle=seller, email=f"{seller}@example.org")
    race_market.order(number, lot=race_market.record_lot(9_000 + number, seller_id=seller), seller=seller)
    return seller


def automated_orders(race_market: RaceMarket, rounds: range, *, filed: bool) -> Iterator[int]:
    """Orders, or their alerts, that become due for the automation one by one."""
    for number in race_market.prepare(rounds):
        seller = order_of_own_seller(race_market, number)
        if filed:
            race_market.days_ago(8).do("npb.file", order_id=number, member_id=seller)
    settings = {"cancel_after_unlock": 0} if filed else {"file_npb_after": 7}
    for number in rounds:
        race_market.days_ago(0).do("sellers.set_automation", member_id=f"seller-{number}", **settings)
        yield number


def test_payment_stops_an_automatic_cancellation_or_is_late(race_market: RaceMarket, rounds: range) -> None:
    """R121, R107: a payment that is committed first is never followed by the cancellation."""
    for number in automated_orders(race_market, rounds, filed=True):
        pay = ("orders.record_payment", {"order_id": number, "payment_status": "Sent"})
        swept, paid = race_market.processes.race(CANCEL_SWEEP, pay)
        assert codes([swept, paid]) == ("done", "done")
        cancelled = "late_payment" in paid["effects"]
        assert swept["effects"]["cancelled"] == cancelled
        assert race_market.status(number) == ("CANCELLED" if cancelled else "NPB")
    race_market.finish()


def test_hold_stops_an_automatic_cancellation_or_is_too_late(race_market: RaceMarket, rounds: range) -> None:
    """R118, R121."""
    for number in automated_orders(race_market, rounds, filed=True):
        hold = {"order_id": number, "member_id": f"seller-{number}", "comment": "asked by phone"}
        swept, held = race_market.processes.race(CANCEL_SWEEP, ("orders.hold_automation", hold))
        ends = {(1, "ALREADY_CANCELLED"): "CANCELLED", (0, "done"): "NPB"}
        assert race_market.status(number) == ends[swept["effects"]["cancelled"], codes([held])[0]]
    race_market.finish()


def test_exclusion_stops_an_automatic_cancellation_or_comes_after_it(race_market: RaceMarket, rounds: range) -> None:
    """R118, R121: the audit compares each cancellation with the settings before it."""
    for number in automated_orders(race_market, rounds, filed=True):
        exclude = {"member_id": f"seller-{number}", "exclude_buyers": [f"buyer-{number}"]}
        swept, excluded = race_market.processes.race(CANCEL_SWEEP, ("sellers.set_automation", exclude))
        assert codes([swept, excluded]) == ("done", "done")
        assert race_market.status(number) == ("CANCELLED" if swept["effects"]["cancelled"] else "NPB")
    race_market.finish()
    assert {alert.cancels_at for alert in race_market.market.alerts()} == {None}


def test_seller_cancels_or_automation_does(race_market: RaceMarket, rounds: range) -> None:
    """R62, R116: one cancellation, one strike, one return."""
    for number in automated_orders(race_market, rounds, filed=True):
        cancel = ("orders.cancel", {"order_id": number, "member_id": f"seller-{number}"})
        swept, own = race_market.processes.race(CANCEL_SWEEP, cancel)
        assert (swept["effects"]["cancelled"], codes([own])[0]) in {(1, "ALREADY_CANCELLED"), (0, "done")}
    race_market.finish()
    assert race_market.market.count(StrikeRow) == len(rounds)
    assert race_market.market.count(StockMoveRow, kind="returned") == len(rounds)


def test_buyer_answers_an_automatic_alert_only_once_it_is_filed(race_market: RaceMarket, rounds: range) -> None:
    """R115, R31."""
    for number in automated_orders(race_market, rounds, filed=False):
        answer = {"order_id": number, "member_id": f"buyer-{number}", "comment": "on Friday"}
        swept, answered = race_market.processes.race(FILING_SWEEP, ("npb.respond", answer))
        assert swept["effects"] == {"filed": 1}
        assert codes([answered])[0] in {"NO_OPEN_ALERT", "done"}
        assert race_market.status(number) == "NPB"
    race_market.finish()


def test_payment_stops_an_automatic_alert_or_comes_after_it(race_market: RaceMarket, rounds: range) -> None:
    """R115, R121."""
    for number in automated_orders(race_market, rounds, filed=False):
        pay = ("orders.record_payment", {"order_id": number, "payment_status": "Received"})
        swept, paid = race_market.processes.race(FILING_SWEEP, pay)
        assert codes([swept, paid]) == ("done", "done")
        assert race_market.status(number) == ("NPB" if swept["effects"]["filed"] else "PENDING")
    race_market.finish()


def test_two_sweepers_cancel_each_order_once(race_market: RaceMarket, rounds: range) -> None:
    """R124."""
    for _ in automated_orders(race_market, rounds, filed=True):
        first, second = race_market.processes.race(CANCEL_SWEEP, CANCEL_SWEEP)
        assert first["effects"]["cancelled"] + second["effects"]["cancelled"] == 1
    race_market.finish()


def requested_orders(race_market: RaceMarket, rounds: range) -> Iterator[int]:
    """Orders whose buyers asked to cancel them, and whose sellers agree to that one by one."""
    for number in race_market.prepare(rounds):
        order_of_own_seller(race_market, number)
        request = {"order_id": number, "member_id": f"buyer-{number}", "reason": "B_MUTUAL", "comment": "we spoke"}
        race_market.days_ago(29).do("ocr.file", **request)
    for number in rounds:
        agreement = {"member_id": f"seller-{number}", "agree_to_requests_within": 168}
        race_market.days_ago(0).do("sellers.set_automation", **agreement)
        yield number


def test_payment_stops_an_automatic_agreement_or_is_late(race_market: RaceMarket, rounds: range) -> None:
    """R117, R121, R107."""
    for number in requested_orders(race_market, rounds):
        pay = ("orders.record_payment", {"order_id": number, "payment_status": "Received"})
        swept, paid = race_market.processes.race(ANSWER_SWEEP, pay)
        assert codes([swept, paid]) == ("done", "done")
        cancelled = "late_payment" in paid["effects"]
        assert swept["effects"] == {"agreed": int(cancelled), "declined": 0}
        assert race_market.status(number) == ("CANCELLED" if cancelled else "OCR")
    race_market.finish()


@pytest.mark.parametrize(
    ("command", "who", "status"),
    [
        ("ocr.withdraw", "buyer", "PENDING"),
        ("ocr.decline", "seller", "PENDING"),
        ("orders.hold_automation", "seller", "OCR"),
        ("npb.file", "seller", "NPB"),
    ],
)
def test_a_party_answers_a_request_or_automation_does(
    race_market: RaceMarket, rounds: range, command: str, who: str, status: str
) -> None:
    """R117, R118, R121, R22: whichever commits first."""
    for number in requested_orders(race_market, rounds):
        arguments: dict[str, object] = {"order_id": number, "member_id": f"{who}-{number}"}
        if command == "orders.hold_automation":
            arguments["comment"] = "asked by phone"
        swept, own = race_market.processes.race(ANSWER_SWEEP, (command, arguments))
        ends = {(1, "ALREADY_CANCELLED"): "CANCELLED", (0, "done"): status}
        assert race_market.status(number) == ends[swept["effects"]["agreed"], codes([own])[0]]
    race_market.finish()


def test_two_sweepers_answer_each_request_once(race_market: RaceMarket, rounds: range) -> None:
    """R124."""
    for _ in requested_orders(race_market, rounds):
        first, second = race_market.processes.race(ANSWER_SWEEP, ANSWER_SWEEP)
        assert first["effects"]["agreed"] + second["effects"]["agreed"] == 1
    race_market.finish()
    assert race_market.market.count(StockMoveRow, kind="returned") == len(rounds)
