"""Tests that exactly one of two concurrent commands wins and the other gets the right code (A17, R62).

Each race runs in processes with connections of their own, released by one barrier: 25 rounds in the everyday suite,
100 in the long tests.  After the rounds the outbox is processed and the database checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from models.bills import BillRow
from models.inventory import LotRow
from models.ledger import LedgerLineRow
from models.members import MemberRow, StrikeRow
from models.orders import OrderLineRow, OrderRow
from models.removals import RemovalRow
from models.stock_moves import StockMoveRow
from tests.e2e.history_checks import order_histories
from tests.e2e.race_market import Ends, RaceMarket, codes

CREDITED = LedgerLineRow.kind.in_(("reset", "credit"))


def sorted_orders(rows: Iterable[Any]) -> list[int]:
    return sorted(row.order_id for row in rows)


@pytest.fixture(params=[25, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def rounds(request: pytest.FixtureRequest) -> range:
    return range(1, request.param + 1)


def test_one_of_two_cancels_succeeds(race_market: RaceMarket, rounds: range) -> None:
    """R62: the other is refused; one strike, one return, one credit."""
    for number in race_market.prepare(rounds):
        race_market.npb(race_market.order(number), days_ago=8)
    for number in rounds:
        cancel = ("orders.cancel", {"order_id": number, "member_id": "seller"})
        assert sorted(codes(race_market.processes.race(cancel, cancel))) == ["ALREADY_CANCELLED", "done"]
    race_market.finish()
    assert race_market.market.count(StrikeRow) == len(rounds)
    assert sorted_orders(race_market.market.stored(StockMoveRow, kind="returned")) == list(rounds)
    assert sorted_orders(race_market.market.ledger_lines(CREDITED)) == list(rounds)


def test_penalty_is_taken_back_or_the_order_cancelled(race_market: RaceMarket, rounds: range) -> None:
    """R34, R35, A17."""
    for number in race_market.prepare(rounds):
        race_market.npb(race_market.order(number), days_ago=2, accepted=True)
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            ("npb.take_back", {"order_id": number, "member_id": f"buyer-{number}"}),
        )
        ends: Ends = {("done", "ALREADY_CANCELLED"): "CANCELLED", ("TOO_EARLY", "done"): "NPB"}
        assert race_market.status(number) == ends[codes(answers)]
    race_market.finish()
    assert sorted_orders(race_market.market.strikes()) == [
        number for number in rounds if race_market.status(number) == "CANCELLED"
    ]


def test_removal_is_approved_before_the_cancel_or_not_at_all(race_market: RaceMarket, rounds: range) -> None:
    """R60, R80: units return once, in either order."""
    for number in race_market.prepare(rounds):
        race_market.order(number)
        ask = {"order_id": number, "member_id": f"buyer-{number}", "lines": [{"line_no": 1, "quantity": 2}]}
        race_market.days_ago(5).do("removals.request", **ask)
        race_market.do("members.terminate", member_id=f"buyer-{number}", staff="kim", comment="fraud")
    removal_ids = {removal.order_id: removal.removal_id for removal in race_market.market.stored(RemovalRow)}
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            ("removals.approve", {"removal_id": removal_ids[number], "member_id": "seller"}),
        )
        assert codes(answers) in {("done", "ALREADY_CANCELLED"), ("done", "done")}
        returned = 5 if codes(answers)[1] != "done" else 3
        assert answers[0]["effects"]["lines"][0]["returned"] == returned
    race_market.finish()
    assert race_market.market.units() == 1_000_000


def test_payment_that_arrives_first_prevents_the_alert(race_market: RaceMarket, rounds: range) -> None:
    """R23, N18: a later payment is reported to the seller."""
    for number in race_market.prepare(rounds):
        race_market.order(number)
    for number in rounds:
        answers = race_market.processes.race(
            ("npb.file", {"order_id": number, "member_id": "seller"}),
            ("orders.record_payment", {"order_id": number, "payment_status": "Completed"}),
        )
        ends: Ends = {("ALREADY_PAID", "done"): "PENDING", ("done", "done"): "NPB"}
        assert race_market.status(number) == ends[codes(answers)]
    race_market.finish()
    notices = race_market.market.notices(event="payment_during_alert")
    assert sorted_orders(notices) == [number for number in rounds if race_market.status(number) == "NPB"]


def test_request_is_declined_or_agreed_to(race_market: RaceMarket, rounds: range) -> None:
    """R12, R15, A17."""
    for number in race_market.prepare(rounds):
        race_market.ocr(race_market.order(number), f"buyer-{number}")
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            ("ocr.decline", {"order_id": number, "member_id": "seller"}),
        )
        ends: Ends = {("done", "ALREADY_CANCELLED"): "CANCELLED", ("NO_OPEN_REQUEST", "done"): "PENDING"}
        assert race_market.status(number) == ends[codes(answers)]
    race_market.finish()


def test_request_sent_twice_has_one_answer(race_market: RaceMarket, rounds: range) -> None:
    for number in race_market.prepare(rounds):
        race_market.ocr(race_market.order(number), "seller")
    for number in rounds:
        cancel = ("orders.cancel", {"order_id": number, "member_id": "seller", "request_id": f"r-{number}"})
        first, second = race_market.processes.race(cancel, cancel)
        assert {first["replayed"], second["replayed"]} == {False, True}, (first, second)
        assert first | {"replayed": None} == second | {"replayed": None}
        assert first["outcome"] == "done"
    race_market.finish()


def test_request_id_of_two_commands_is_a_conflict(race_market: RaceMarket, rounds: range) -> None:
    for number in race_market.prepare(rounds):
        race_market.ocr(race_market.order(number), f"buyer-{number}")
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller", "request_id": f"r-{number}"}),
            ("ocr.decline", {"order_id": number, "member_id": "seller", "request_id": f"r-{number}"}),
        )
        ends: Ends = {("done", "REQUEST_ID_REUSED"): "CANCELLED", ("REQUEST_ID_REUSED", "done"): "PENDING"}
        assert race_market.status(number) == ends[codes(answers)]
    race_market.finish()


def test_two_orders_return_to_one_lot(race_market: RaceMarket, rounds: range) -> None:
    for number in race_market.prepare(rounds):
        race_market.ocr(race_market.order(number), "seller")
        race_market.ocr(race_market.order(1000 + number), "seller")
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            ("orders.cancel", {"order_id": 1000 + number, "member_id": "seller"}),
        )
        assert codes(answers) == ("done", "done")
    race_market.finish()
    assert race_market.market.units() == 1_000_000


def test_two_orders_of_one_item_create_one_new_lot(race_market: RaceMarket, rounds: range) -> None:
    """R75: a lot that doesn't exist yet can't be row-locked."""
    for number in race_market.prepare(rounds):
        lot = race_market.record_lot(5000 + number, quantity=10, item={"no": f"no-{number}", "type": "PART"})
        race_market.ocr(race_market.order(number, lot=lot), "seller")
        race_market.ocr(race_market.order(1000 + number, lot=lot), "seller")
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            ("orders.cancel", {"order_id": 1000 + number, "member_id": "seller"}),
        )
        assert codes(answers) == ("done", "done")
    race_market.finish()
    new_lots = race_market.market.lots(LotRow.item_no.startswith("no-"))
    assert sorted(lot.item_no for lot in new_lots) == sorted(f"no-{number}" for number in rounds)
    assert {lot.quantity for lot in new_lots} == {10}


def test_lot_sells_out_while_units_return_to_it(race_market: RaceMarket, rounds: range) -> None:
    """R78: no unit is lost and none appears."""
    for number in race_market.prepare(rounds):
        lot = race_market.record_lot(5000 + number, quantity=10, item={"no": f"no-{number}", "type": "PART"})
        race_market.ocr(race_market.order(number, lot=lot), "seller")
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}),
            (
                "orders.submit",
                {
                    "order_id": 1000 + number,
                    "buyer_id": "buyer",
                    "seller_id": "seller",
                    "lines": [{"lot_id": 5000 + number, "quantity": 5}],
                },
            ),
        )
        assert codes(answers) == ("done", "done")
    race_market.finish()
    units: Counter[str] = Counter()
    for row in race_market.market.lots(LotRow.item_no.startswith("no-")):
        units[row.item_no] += row.quantity
    assert units == {f"no-{number}": 5 for number in rounds}


def test_two_scans_unlock_and_notify_once(race_market: RaceMarket, rounds: range) -> None:
    """R41."""
    for number in race_market.prepare(rounds):
        for order in (number, 1000 + number, 2000 + number):
            race_market.order(order)
    for number in rounds:
        for order in (number, 1000 + number, 2000 + number):
            race_market.npb(order, days_ago=9)
        answers = race_market.processes.race(("npb.scan_open_alerts", {}), ("npb.scan_open_alerts", {}))
        assert codes(answers) == ("done", "done")
        assert race_market.market.alerts(unlocked_at=None) == []
    race_market.finish()
    for rows in (race_market.market.events(type="npb.unlocked"), race_market.market.notices(event="npb_unlocked")):
        orders = sorted_orders(rows)
        assert len(orders) == len(set(orders)) == 3 * len(rounds)


def test_alert_removed_during_a_scan_is_not_unlocked(race_market: RaceMarket, rounds: range) -> None:
    """R43."""
    for number in race_market.prepare(rounds):
        race_market.order(number)
    for number in rounds:
        race_market.npb(number, days_ago=9)
        answers = race_market.processes.race(
            ("npb.scan_open_alerts", {}), ("npb.remove", {"order_id": number, "member_id": "seller"})
        )
        assert codes(answers) == ("done", "done")
    race_market.finish()
    for events, _ in order_histories(race_market.market).values():
        types = [event.type for event in events]
        assert "npb.unlocked" not in types[types.index("npb.removed") :], types
    assert {order.status for order in race_market.market.stored(OrderRow)} == {"PENDING"}


def test_order_is_placed_before_the_alert_or_refused(race_market: RaceMarket, rounds: range) -> None:
    """R25: no order of that buyer in that store is younger than the alert."""
    for number in race_market.prepare(rounds):
        race_market.order(number)
    for number in rounds:
        answers = race_market.processes.race(
            ("npb.file", {"order_id": number, "member_id": "seller"}),
            (
                "orders.submit",
                {
                    "order_id": 1000 + number,
                    "buyer_id": f"buyer-{number}",
                    "seller_id": "seller",
                    "lines": [{"lot_id": race_market.lot, "quantity": 1}],
                },
            ),
        )
        assert codes(answers) in {("done", "done"), ("done", "BUYER_BLOCKED_IN_STORE")}
        if codes(answers)[1] == "done":
            (alert,) = race_market.market.alerts(order_id=number)
            assert race_market.market.stored_order(1000 + number).order_date <= alert.filed_at
    race_market.finish()


def test_three_concurrent_strikes_revoke_the_privilege(race_market: RaceMarket, rounds: range) -> None:
    """R95, R97: each cancellation counts the others, in any commit order."""
    for number in race_market.prepare(rounds):
        buyer = f"buyer-{number}"
        for order in (number, 1000 + number, 2000 + number):
            race_market.order(order, buyer=buyer)
        for order in (number, 1000 + number, 2000 + number):
            race_market.npb(order, days_ago=9)
    for number in rounds:
        orders = (number, 1000 + number, 2000 + number)
        answers = race_market.processes.race(
            *[("orders.cancel", {"order_id": o, "member_id": "seller"}) for o in orders]
        )
        assert codes(answers) == ("done", "done", "done")
    race_market.finish()
    allowed = race_market.market.stored(MemberRow, MemberRow.member_id.startswith("buyer-"), buying_revoked_at=None)
    assert not allowed, f"{len(allowed)} of {len(rounds)} buyers with three strikes may still buy"
    notices = race_market.market.notices(event="privilege_revoked")
    assert len(notices) == len({notice.recipient for notice in notices}) == len(rounds)


def test_seller_is_closed_before_or_after_the_return(race_market: RaceMarket, rounds: range) -> None:
    """R65: both answers agree with the order of the commits."""
    for number in race_market.prepare(rounds):
        seller = f"seller-{number}"
        race_market.days_ago(30).do("members.record", member_id=seller, handle=seller, email=f"{seller}@example.org")
        race_market.record_lot(5000 + number, seller_id=seller)
        race_market.order(number, lot=5000 + number, seller=seller)
        race_market.ocr(number, seller)
    for number in rounds:
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": f"seller-{number}"}),
            ("members.terminate", {"member_id": f"seller-{number}", "staff": "kim", "comment": "fraud"}),
        )
        assert codes(answers) == ("done", "done")
        (store,) = race_market.market.stored(MemberRow, member_id=f"seller-{number}")
        cancelled_at = race_market.market.stored_order(number).cancelled_at
        assert cancelled_at is not None
        assert store.terminated_at is not None
        assert answers[0]["effects"]["lines"][0]["returned"] == (5 if cancelled_at <= store.terminated_at else 0)
    race_market.finish()


def test_one_of_two_requests_for_the_same_units_is_approved(race_market: RaceMarket, rounds: range) -> None:
    for number in race_market.prepare(rounds):
        race_market.order(number)
    for _ in range(2):
        for number in race_market.prepare(rounds):
            ask = {"order_id": number, "member_id": f"buyer-{number}", "lines": [{"line_no": 1, "quantity": 3}]}
            race_market.days_ago(5).do("removals.request", **ask)
    for number in rounds:
        removals = race_market.market.stored(RemovalRow, order_id=number)
        answers = race_market.processes.race(
            *[("removals.approve", {"removal_id": row.removal_id, "member_id": "seller"}) for row in removals]
        )
        assert sorted(codes(answers)) == ["done", "invalid"]
    race_market.finish()
    assert {line.removed for line in race_market.market.stored(OrderLineRow)} == {3}


def test_outbox_messages_run_once_with_many_workers(race_market: RaceMarket, rounds: range) -> None:
    """R41, R59, R90: three concurrent consumers."""
    for number in race_market.prepare(rounds):
        race_market.order(number)
        ask = {"order_id": number, "member_id": f"buyer-{number}", "lines": [{"line_no": 1, "quantity": 2}]}
        race_market.days_ago(6).do("removals.request", **ask)
        race_market.ocr(number, "seller")
    for number in rounds:
        race_market.days_ago(4).do("orders.cancel", order_id=number, member_id="seller")
        for consumer in ("credits.post_to_next_invoice", "removals.cancel_pending", "notices.tell_seller"):
            assert codes(race_market.processes.race(*[(consumer, {})] * 3)) == ("done", "done", "done")
    race_market.finish()
    assert sorted_orders(race_market.market.ledger_lines(CREDITED)) == list(rounds)
    assert sorted_orders(race_market.market.events(type="removals.cancelled")) == list(rounds)
    for event in ("order_cancelled", "removal_cancelled"):
        notices = [(notice.order_id, notice.recipient) for notice in race_market.market.notices(event=event)]
        assert len(notices) == len(set(notices)) == 2 * len(rounds)


def test_lot_is_corrected_while_units_return_to_it(race_market: RaceMarket, rounds: range) -> None:
    for number in race_market.prepare(rounds):
        lot = race_market.record_lot(5000 + number, quantity=10, item={"no": f"no-{number}", "type": "PART"})
        race_market.ocr(race_market.order(number, lot=lot), "seller")
    for number in rounds:
        facts = {
            "lot_id": 5000 + number,
            "seller_id": "seller",
            "item": {"no": f"no-{number}", "type": "PART"},
            "color_id": 5,
            "quantity": 50,
            "new_or_used": "N",
            "unit_price": "1.0000",
        }
        answers = race_market.processes.race(
            ("orders.cancel", {"order_id": number, "member_id": "seller"}), ("inventory.record_lot", {"lot": facts})
        )
        assert codes(answers) == ("done", "done")
        left = race_market.market.units(5000 + number)
        assert left == {45: 55, 40: 50}[answers[1]["effects"]["adjusted"]]
    race_market.finish()


def test_credit_is_on_the_bill_of_its_month_while_that_bill_is_issued(race_market: RaceMarket, rounds: range) -> None:
    """R84, R90: concurrent posting and issuing: always one credit, on the bill of the cancellation's month."""
    fifty = [{"lot_id": race_market.lot, "quantity": 50}]
    for number in rounds:
        month = 12 * 2025 + 3 * number  # months since the year 0; a round takes three, and time only advances
        race_market.simulation.clock.instant = datetime(month // 12, month % 12 + 1, 10, 12, tzinfo=UTC)
        race_market.do("orders.submit", order_id=number, buyer_id="buyer", seller_id="seller", lines=fifty)
        month += 1
        race_market.simulation.clock.instant = datetime(month // 12, month % 12 + 1, 20, 12, tzinfo=UTC)
        race_market.do("ocr.file", order_id=number, member_id="seller", reason="S_MUTUAL", comment="we spoke")
        race_market.do("orders.cancel", order_id=number, member_id="seller")
        credited = race_market.simulation.clock.instant
        month += 1
        answers = race_market.processes.race(
            ("bills.issue", {}),
            ("credits.post_to_next_invoice", {}),
            at=datetime(month // 12, month % 12 + 1, 5, 6, tzinfo=UTC),
        )
        assert codes(answers) == ("done", "done")
        credits_of_order = race_market.market.ledger_lines(order_id=number, kind="credit")
        assert [line.billing_month for line in credits_of_order] == [credited.date().replace(day=1)]
    for bill in race_market.market.stored(BillRow):
        lines = race_market.market.ledger_lines(seller_id=bill.seller_id, billing_month=bill.billing_month)
        assert bill.lines_sum == sum(line.amount for line in lines), bill.billing_month
    race_market.simulation.process_outbox()
