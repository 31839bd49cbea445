"""Terms apply from their date on; open cases keep theirs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from models.terms import TermsRow
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market

DAY = timedelta(days=1)


def apply(market: Market, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    arguments = {"terms": settings, "from": format_timestamp(market.simulation.clock.instant), "staff": "kim"} | more
    return market.do("terms.apply", **arguments)


def test_terms_apply_from_their_date_on(market: Market) -> None:
    market.order(1003)
    start = ORDERED + 2 * DAY
    assert apply(market, {"NPB_FILE_AFTER": "2d"}, **{"from": format_timestamp(start)})["outcome"] == "done"
    market.at(start - timedelta(seconds=1))
    assert market.code("npb.file", order_id=1003, member_id="seller") == "TOO_EARLY"
    market.at(start)
    assert market.code("npb.file", order_id=1003, member_id="seller") is None


def test_an_open_case_keeps_the_terms_it_was_filed_under(market: Market) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    apply(market, {"NPB_UNLOCK_NO_RESPONSE": "1d", "NPB_UNLOCK_RESPONSE": "2d"})
    assert market.code("orders.cancel", order_id=1003, member_id="seller") == "TOO_EARLY"
    market.at(FILED + 3 * DAY)
    effects = market.done("npb.respond", order_id=1003, member_id="buyer", comment="I will pay")
    assert effects["unlocks_at"] == format_timestamp(FILED + 2 * WEEK)


@pytest.mark.parametrize(("occurred", "waits"), [(-timedelta(seconds=1), WEEK), (timedelta(0), DAY)])
def test_a_command_that_waited_is_decided_by_the_terms_of_its_time(
    market: Market, occurred: timedelta, waits: timedelta
) -> None:
    """R41: as options say, and the audit of the months expects."""
    market.order(1003)
    start = FILED + DAY / 2
    apply(market, {"NPB_UNLOCK_NO_RESPONSE": "1d", "NPB_FILE_AFTER": "8d"}, **{"from": format_timestamp(start)})
    market.at(FILED + DAY)
    command: dict[str, Any] = {
        "order_id": 1003,
        "member_id": "seller",
        "occurred_at": format_timestamp(start + occurred),
    }
    options = market.done("orders.options", **command)["options"]
    possible = {option["action"]: option["possible"] for option in options}["npb.file"]
    assert possible == (occurred < timedelta(0))
    if not possible:
        assert market.code("npb.file", **command) == "TOO_EARLY"
        market.at(FILED + 2 * DAY)
        command["occurred_at"] = format_timestamp(FILED + DAY)
    effects = market.done("npb.file", **command)
    assert effects["unlocks_at"] == format_timestamp(datetime.fromisoformat(command["occurred_at"]) + waits)


def test_unnamed_settings_keep_the_value_of_that_date(market: Market) -> None:
    assert apply(market, {"STRIKE_LIMIT": 5})["effects"]["changed"] == {"STRIKE_LIMIT": 5}
    market.at(ORDERED + DAY)
    assert apply(market, {"BILL_DAY": 7})["effects"]["changed"] == {"BILL_DAY": 7}
    settings = market.stored(TermsRow)[-1].settings
    assert (settings["STRIKE_LIMIT"], settings["BILL_DAY"], settings["NPB_FILE_AFTER"]) == (5, 7, "7d")


def test_the_change_is_an_event_that_names_who_and_what(market: Market) -> None:
    """R100: who, what, from, to, when."""
    apply(market, {"STRIKE_LIMIT": 4})
    (event,) = market.events(type="terms.applied")
    assert (event.actor, event.role, event.at) == ("staff:kim", "staff", ORDERED)
    assert "STRIKE_LIMIT: 3 becomes 4" in event.note


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"NPB_UNLOCK_NO_RESPONSE": "59s"}, "terms.NPB_UNLOCK_NO_RESPONSE"),
        ({"NPB_UNLOCK_RESPONSE": "6d"}, "terms.NPB_UNLOCK_RESPONSE"),
        ({"NPB_LATE_RESPONSE": "maybe"}, "terms.NPB_LATE_RESPONSE"),
        ({"BILLING_TIME_ZONE": "Mars/Olympus"}, "terms.BILLING_TIME_ZONE"),
        ({"BILLING_TIME_ZONE": 5}, "terms.BILLING_TIME_ZONE"),
        (
            {"FEE_SLICES": [{"up_to": "500", "rate": "0.03"}, {"up_to": "400", "rate": "0.02"}, {"rate": "0.01"}]},
            "terms.FEE_SLICES",
        ),
        ({"FEE_SLICES": [{"up_to": "500", "rate": "0.03"}]}, "terms.FEE_SLICES"),
        ({"FEE_SLICES": [{"rate": 0.03}]}, "terms.FEE_SLICES"),
        ({"FEE_SLICES": [{"rate": "NaN"}]}, "terms.FEE_SLICES"),
        ({"FEE_SLICES": [{"rate": "x"}]}, "terms.FEE_SLICES"),
        ({"FEE_SLICES": ["0.03"]}, "terms.FEE_SLICES"),
        ({"MINIMUM_BILL": "1e9999"}, "terms.MINIMUM_BILL"),
        ({"MINIMUM_BILL": 5.0}, "terms.MINIMUM_BILL"),
        ({"MINIMUM_BILL": "-1.00"}, "terms.MINIMUM_BILL"),
        ({"BILL_DAY": 31}, "terms.BILL_DAY"),
        ({"BILL_DAY": True}, "terms.BILL_DAY"),
        ({"STRIKE_LIMIT": 0}, "terms.STRIKE_LIMIT"),
        ({"OCR_REMIND_AFTER": ["5d", "2d"]}, "terms.OCR_REMIND_AFTER"),
        ({"OCR_SILENCE": "5d"}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": None}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {}}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {"agree_after": "5d", "decline_after": "5d"}}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {"after": "5d"}}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {"agree_after": 5}}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {"decline_after": "59s"}}, "terms.OCR_SILENCE"),
        ({"OCR_SILENCE": {"decline_after": "3651d"}}, "terms.OCR_SILENCE"),
        ({"OCR_FILEABLE_STATUSES": ["CANCELLED"]}, "terms.OCR_FILEABLE_STATUSES"),
        ({"OCR_FILEABLE_STATUSES": []}, "terms.OCR_FILEABLE_STATUSES"),
        ({"NPB_FILE_AFTER": "99999999d"}, "terms.NPB_FILE_AFTER"),
        ({"NPB_FILE_AFTER": "-1d"}, "terms.NPB_FILE_AFTER"),
        ({"NPB_FILE_AFTER": None}, "terms.NPB_FILE_AFTER"),
        ({"NPB_FILES_AFTER": "7d"}, "terms.NPB_FILES_AFTER"),
        ({"FEE_EXEMPT_SELLERS": ["a\x00b"]}, "terms"),
        ({}, "terms"),
    ],
)
def test_invalid_terms_name_the_setting(market: Market, settings: dict[str, Any], path: str) -> None:
    answer = apply(market, settings)
    assert answer["outcome"] == "invalid", answer
    assert path in [problem["path"] for problem in answer["errors"]]
    assert market.count(TermsRow) == 0


def test_terms_in_the_past_are_invalid(market: Market) -> None:
    answer = apply(market, {"STRIKE_LIMIT": 4}, **{"from": format_timestamp(ORDERED - timedelta(seconds=1))})
    assert [problem["path"] for problem in answer["errors"]] == ["from"]


def test_terms_can_allow_cancel_requests_for_paid_orders(market: Market) -> None:
    market.order(1003)
    market.done("orders.set_status", order_id=1003, member_id="seller", status="PAID")
    request = {"order_id": 1003, "member_id": "seller", "reason": "S_MUTUAL", "comment": "agreed"}
    assert market.code("ocr.file", **request) == "WRONG_STATUS"
    apply(market, {"OCR_FILEABLE_STATUSES": ["PENDING", "PAID"]})
    assert market.code("ocr.file", **request) is None
    effects = market.done("ocr.withdraw", order_id=1003, member_id="seller")
    assert effects["status"] == "PAID"


def test_the_same_request_twice_is_one_row(market: Market) -> None:
    first = apply(market, {"STRIKE_LIMIT": 4}, request_id="t-1")
    again = apply(market, {"STRIKE_LIMIT": 4}, request_id="t-1")
    assert (again["effects"], again["replayed"]) == (first["effects"], True)
    assert market.count(TermsRow) == 1
