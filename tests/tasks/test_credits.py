"""Credits of fees: each is posted exactly once, and one that fails does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from models import bills, dead_jobs
from models.db import database as db
from models.db.conflicts import retry_on_conflict
from models.ledger import LedgerLineRow
from models.outbox import OutboxRow
from policies.timestamps import format_timestamp
from tests.plugins.market import ORDERED, Market
from workers.app import app

APRIL = datetime(2026, 4, 12, 10, tzinfo=UTC)


def enqueue_credit(market: Market, order_id: int, **facts: Any) -> int:
    by = {"order_id": order_id, "member_id": "seller"}
    assert market.simulation.do("ocr.file", **by, reason="S_MUTUAL", comment="both agree")["outcome"] == "done"
    assert market.simulation.do("orders.cancel", **by)["outcome"] == "done"
    with market.simulation.database.transaction() as conn:
        outbox_id: int = conn.execute(
            text(
                "UPDATE unwind.outbox SET payload = payload || jsonb_object(CAST(:names AS text[]), "
                "CAST(:values AS text[])) "
                "WHERE key = 'fee:' || CAST(:id AS text) RETURNING outbox_id"
            ),
            {"id": order_id, "names": list(facts), "values": list(facts.values())},
        ).scalar_one()
    return outbox_id


def posted(market: Market) -> list[tuple[int | None, str, Decimal, date]]:
    lines = market.ledger_lines(LedgerLineRow.kind.in_(("reset", "credit")))
    return [(line.order_id, line.kind, line.amount, line.billing_month) for line in lines]


def credit_messages(market: Market) -> list[OutboxRow]:
    return [message for message in market.outbox() if message.payload.get("event") == "credit_posted"]


@pytest.fixture
def charged(market: Market) -> Market:
    for order_id in (1, 2):
        market.order(order_id, [(market.lot(500 + order_id, unit_price="750"), 1)])
    return market.at(APRIL)


@pytest.mark.parametrize("times", [2, 10])
def test_a_credit_is_posted_once_however_often_the_consumer_runs(charged: Market, times: int) -> None:
    """R90: by row id, by order, and as due work."""
    number = enqueue_credit(charged, 1)
    ways: list[dict[str, Any]] = [{"rows": [number]}, {"order_id": 1}, {}]
    for turn in range(times):
        failure = ways[turn % 3]
        charged.done("credits.post_to_next_invoice", **failure)
    assert posted(charged) == [(1, "credit", Decimal("-20.00"), date(2026, 4, 1))]
    assert [message.payload["facts"] for message in credit_messages(charged)] == [
        {"amount": "20.00", "bill": "2026-04", "charged_month": "2026-03"}
    ]


@pytest.mark.parametrize("issued", [False, True])
def test_the_answer_and_its_email_name_the_bill_on_which_the_credit_lands(market: Market, issued: bool) -> None:
    """R113: the message of a cancellation of the last hour of March comes when March's bill may be out."""
    begins = format_timestamp(ORDERED)
    market.done("terms.apply", terms={"BILL_DAY": 1}, staff="kim", **{"from": begins})
    market.order(1, [(market.lot(501, unit_price="750"), 1)])
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.at(datetime(2026, 4, 1, 5, tzinfo=UTC))
    if issued:
        market.do("bills.issue")
    late = {"order_id": 1, "member_id": "seller", "occurred_at": "2026-04-01T03:30:00Z"}
    kind, month = ("credit", "2026-04") if issued else ("reset", "2026-03")
    fee = {"kind": kind, "amount": "-20.00", "bill": month}
    assert market.done("orders.cancel", **late, dry_run=True)["fee"] == fee
    assert market.done("orders.cancel", **late)["fee"] == fee
    assert posted(market) == [(1, kind, Decimal("-20.00"), date.fromisoformat(f"{month}-01"))]
    (notice,) = market.notices(event="order_cancelled", role="seller")
    words = " ".join(notice.email["means"])
    assert ("will not be charged" in words) is not issued
    assert ("credited on your bill for April 2026" in words) is issued


@pytest.mark.breaks_invariants("the outbox message contradicts the month of the cancellation")
def test_a_reset_sends_no_notice(charged: Market) -> None:
    """N13 is for credits: of a reset nothing appears on the bill."""
    enqueue_credit(charged, 1, kind="reset", month="2026-03")
    charged.simulation.process_outbox()
    assert posted(charged) == [(1, "reset", Decimal("-20.00"), date(2026, 3, 1))]
    assert credit_messages(charged) == []


def test_a_zero_fee_is_handled_without_a_line(charged: Market) -> None:
    charged.order(3, [(charged.lot(503, unit_price="0.10"), 1)])
    enqueue_credit(charged, 3)
    charged.simulation.process_outbox()
    assert posted(charged) == []
    assert [message.state for message in charged.outbox(key="fee:3")] == ["done"]


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "undecided", "month": None},
        {"amount": "20.00"},
        {"amount": "NaN"},
        {"amount": "much"},
        {"charged_month": None},
        {"month": "April"},
        {"kind": "gift"},
    ],
)
def test_a_credit_that_cannot_be_posted_is_parked_and_does_not_block_others(
    charged: Market, broken: dict[str, Any]
) -> None:
    enqueue_credit(charged, 1, **broken)
    enqueue_credit(charged, 2)
    charged.done("credits.post_to_next_invoice")
    assert [row[0] for row in posted(charged)] == [2]
    with charged.simulation.database.transaction() as conn:
        (dead,) = dead_jobs.list_waiting_jobs(conn)
    assert (dead.task, dead.arguments["order_id"]) == ("credits.post_to_next_invoice", 1)
    assert dead.error
    assert [message.state for message in charged.outbox(key="fee:1")] == ["dead"]


def test_a_credit_that_the_database_refuses_is_retried_and_does_not_block_others(charged: Market) -> None:
    enqueue_credit(charged, 1)
    with charged.simulation.database.transaction() as conn:
        conn.execute(text("UPDATE unwind.outbox SET order_id = 999 WHERE key = 'fee:1'"))
    enqueue_credit(charged, 2)
    charged.simulation.do("credits.post_to_next_invoice")
    assert [row[0] for row in posted(charged)] == [2]
    assert [(message.state, message.attempts) for message in charged.outbox(key="fee:1")] == [("due", 1)]
    for _ in range(11):
        charged.simulation.do("credits.post_to_next_invoice")
    with charged.simulation.database.transaction() as conn:
        assert [job.arguments["order_id"] for job in dead_jobs.list_waiting_jobs(conn)] == [999]


def test_ten_concurrent_consumers_post_one_credit(charged: Market, database_url: str) -> None:
    number = enqueue_credit(charged, 1)
    database = db.connect(database_url, pool_size=10)
    database.clock = charged.simulation.clock
    db.set_database(database)
    try:
        run_together(
            [lambda: retry_on_conflict(lambda: app.tasks["credits.post_to_next_invoice"].run(rows=[number]))] * 10
        )
    finally:
        db.set_database(charged.simulation.database)
        database.dispose()
    assert len(posted(charged)) == 1


@pytest.mark.parametrize("attempt", range(5))
def test_a_credit_posted_while_the_bill_is_issued_is_on_one_bill(
    charged: Market, attempt: int, database_url: str
) -> None:
    number = enqueue_credit(charged, 1)
    charged.at(datetime(2026, 5, 6, attempt, tzinfo=UTC))
    database = db.connect(database_url, pool_size=4)
    database.clock = charged.simulation.clock
    db.set_database(database)
    try:
        run_together(
            [
                lambda: retry_on_conflict(lambda: app.tasks["credits.post_to_next_invoice"].run(rows=[number])),
                lambda: retry_on_conflict(app.tasks["bills.issue"].run),
                lambda: retry_on_conflict(app.tasks["bills.issue"].run),
            ]
        )
    finally:
        db.set_database(charged.simulation.database)
        database.dispose()
    assert posted(charged) == [(1, "credit", Decimal("-20.00"), date(2026, 4, 1))]
    with charged.simulation.database.transaction() as conn:
        april = bills.load_bill_json(conn, "seller", date(2026, 4, 1), charged.simulation.clock.instant)
    assert april is not None
    assert (april["carried_forward"], april["issued_on"]) == ("-20.00", "2026-05-05")


def run_together(bodies: list[Callable[[], Any]]) -> None:
    barrier = threading.Barrier(len(bodies))

    def run(body: Callable[[], Any]) -> None:
        barrier.wait(10)
        body()

    with ThreadPoolExecutor(len(bodies)) as pool:
        for running in [pool.submit(run, body) for body in bodies]:
            running.result(30)


def test_a_manual_credit_goes_on_the_open_bill(charged: Market) -> None:
    effects = charged.done(
        "credits.post_manual", seller_id="seller", amount="4.50", order_id=1, staff="kim", comment="partial refund"
    )
    assert effects == {"seller_id": "seller", "amount": "-4.50", "bill": "2026-04"}
    (line,) = charged.ledger_lines(kind="manual_credit")
    assert (line.amount, line.billing_month, line.order_id) == (Decimal("-4.50"), date(2026, 4, 1), 1)
    assert line.note == "Credit for order 1 in April 2026 by staff (kim): partial refund"


def test_the_same_request_posts_one_manual_credit(charged: Market) -> None:
    for _ in range(2):
        charged.done(
            "credits.post_manual", seller_id="seller", amount="4.50", staff="kim", comment="sorry", request_id="r-1"
        )
    assert charged.count(LedgerLineRow, kind="manual_credit") == 1


@pytest.mark.parametrize(
    ("change", "outcome", "code"),
    [
        ({"seller_id": "nobody"}, "refused", "MEMBER_UNKNOWN"),
        ({"order_id": 77}, "refused", "ORDER_UNKNOWN"),
        ({"order_id": 1, "seller_id": "other_seller"}, "refused", "NOT_A_PARTY"),
        ({"comment": "  "}, "refused", "COMMENT_REQUIRED"),
        ({"comment": None}, "invalid", None),
        ({"amount": "0.00"}, "invalid", None),
        ({"amount": "-4.50"}, "invalid", None),
        ({"amount": "-0"}, "invalid", None),
        ({"amount": "0x10"}, "invalid", None),
        ({"amount": " 1"}, "invalid", None),
        ({"amount": "1,00"}, "invalid", None),
        ({"amount": "1" * 40}, "invalid", None),
        ({"amount": 4.5}, "invalid", None),
        ({"staff": ""}, "invalid", None),
        ({"currency": "EUR"}, "invalid", None),
    ],
)
def test_a_manual_credit_that_does_not_fit_changes_nothing(
    charged: Market, change: dict[str, Any], outcome: str, code: str | None
) -> None:
    arguments = {"seller_id": "seller", "amount": "4.50", "staff": "kim", "comment": "sorry"} | change
    answer = charged.do("credits.post_manual", **arguments)
    assert (answer["outcome"], answer["code"]) == (outcome, code)
    assert charged.count(LedgerLineRow) == 2
