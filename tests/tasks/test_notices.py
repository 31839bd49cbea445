"""Is everybody told exactly once, whatever happens on the way from a promise to a mailbox?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from models import dead_jobs, notices, outbox
from models.db import database as db
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.verdicts import OutboxMessage
from tasks import mailer
from tasks.mailer import OutgoingEmail
from tasks.notices import deliver, tell_seller
from tests.plugins.market import FILED, ORDERED, WEEK, Market

KEY = "ocr_filed:1003:2:seller"


class Tray:
    """A postbox that keeps what it was given."""

    def __init__(self) -> None:
        self.letters: list[OutgoingEmail] = []

    def send(self, envelope: OutgoingEmail) -> None:
        """Keep it."""
        self.letters.append(envelope)

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def tray() -> Iterator[Tray]:
    """What leaves through the postbox of this process."""
    kept = Tray()
    mailer.set_mailer(kept)
    yield kept
    mailer.set_mailer(None)


def promise(*keys: str, event_told: str = "ocr_filed", recipient: str = "seller") -> None:
    """Promise notices to the seller, one a key."""
    facts = {"reason": "B_MUTUAL", "comment": "Please."}
    payload = {"event": event_told, "recipient": recipient, "role": "seller", "facts": facts}
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        work.enqueue([OutboxMessage("notices.tell_seller", key, None, payload) for key in keys])


def counts() -> dict[str, int]:
    """How many notices are in each state."""
    with db.current_database().transaction() as conn:
        return notices.count_by_state(conn)


def test_one_promise_is_one_notice_and_one_mail_however_often_anybody_looks(market: Market, tray: Tray) -> None:
    """P2, I12: one per (event, recipient)."""
    for _ in range(2):
        promise(KEY)
        market.simulation.process_outbox()
        tell_seller.run()
        deliver.run()
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}
    assert [letter.email for letter in tray.letters] == ["seller@example.org"]


def test_without_a_postbox_notices_are_marked_sent(market: Market) -> None:
    """Contract 5: no mail leaves a replay."""
    promise(KEY)
    market.simulation.process_outbox()
    assert counts()["sent"] == 1


def test_a_second_request_after_a_decline_is_a_new_event(market: Market, tray: Tray) -> None:
    """Contract 2.4: one mail per event row and recipient, not per kind."""
    market.at(ORDERED).order()
    for _ in range(2):
        market.done("ocr.file", order_id=1003, member_id="buyer", reason="B_MUTUAL", comment="Please.")
        market.done("ocr.decline", order_id=1003, member_id="seller")
    assert [letter.event for letter in tray.letters] == ["ocr_filed", "ocr_declined"] * 2
    assert len({letter.message_id for letter in tray.letters}) == 4


def test_the_notices_of_an_order_are_shown_in_the_order_they_were_told(market: Market) -> None:
    """Contract 4: event, recipient, state, subject and text, and what was known at an instant."""
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK).done("npb.scan_open_alerts")
    market.done("orders.cancel", order_id=1003, member_id="seller")
    with db.current_database().transaction() as conn:
        shown = notices.list_for_order(conn, 1003)
        before = notices.list_for_order(conn, 1003, until=FILED + WEEK / 2)
    assert [(one["event"], one["recipient"], one["state"]) for one in shown] == [
        ("npb_filed", "buyer", "sent"),
        ("npb_unlocked", "seller", "sent"),
        ("order_cancelled", "seller", "sent"),
        ("order_cancelled", "buyer", "sent"),
        ("credit_posted", "seller", "sent"),
    ]
    assert [one["event"] for one in before] == ["npb_filed"]
    assert shown[0]["sent_at"] == "2026-04-04T10:00:00Z"
    assert "Saturday, 11 April 2026, 10:00 (UTC)" in shown[0]["text"].replace("\n", " ")
    assert set(shown[0]) == {"event", "order_id", "recipient", "state", "sent_at", "subject", "text"}


def test_dates_are_in_the_readers_own_zone(market: Market) -> None:
    """House: with the zone written out."""
    market.done("members.record", member_id="buyer", handle="Bea", email="b@example.org", time_zone="Asia/Tokyo")
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    with db.current_database().transaction() as conn:
        text = notices.list_for_order(conn, 1003)[0]["text"].replace("\n", " ")
    assert "Saturday, 11 April 2026, 19:00 (Asia/Tokyo, UTC+09:00)" in text


def test_a_promise_that_makes_no_sense_silences_no_other_and_ends_in_sight(market: Market) -> None:
    """P8, P1: counted, in the end parked."""
    promise("nonsense:1", event_told="no_such_event")
    promise(KEY)
    market.simulation.process_outbox()
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}
    with db.current_database().transaction() as conn:
        (job,) = dead_jobs.list_waiting(conn)
    assert (job.task, job.attempts) == ("notices.tell_seller", outbox.MAX_ATTEMPTS)


def test_a_letter_that_breaks_the_postbox_delays_no_other(market: Market) -> None:
    """P8: a bug met by one letter is that letter's trouble."""

    class Breaks(Tray):
        def send(self, envelope: OutgoingEmail) -> None:
            if envelope.event == "npb_unlocked":
                raise ZeroDivisionError("a bug")
            super().send(envelope)

    box = Breaks()
    mailer.set_mailer(box)
    promise("npb_unlocked:1003:5:seller", event_told="npb_unlocked")
    promise(KEY)
    market.simulation.process_outbox()
    mailer.set_mailer(None)
    assert [letter.event for letter in box.letters] == ["ocr_filed"]
    assert counts() == {"pending": 1, "sent": 1, "parked": 0}


def test_two_workers_deliver_each_letter_once(market: Market, tray: Tray, database_url: str) -> None:
    """P2: whoever claims a letter first sends it."""
    database = db.connect(database_url, pool_size=4)
    database.clock = market.simulation.clock
    db.set_database(database)
    promise(*(f"ocr_filed:{n}:2:seller" for n in range(300)))
    tell_seller.run()
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        deliver.run()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    db.set_database(market.simulation.database)
    database.dispose()
    assert counts() == {"pending": 0, "sent": 300, "parked": 0}
    assert len(tray.letters) == len({letter.message_id for letter in tray.letters}) == 300


def test_a_worker_that_was_overtaken_marks_nothing(market: Market, tray: Tray) -> None:
    """A worker that slept past its lease finds another try counted and leaves the row alone."""
    promise(KEY)
    tell_seller.run()
    clock = market.simulation.clock

    class SleepsTooLong(Tray):
        def send(self, envelope: OutgoingEmail) -> None:
            clock.instant += WEEK
            mailer.set_mailer(tray)
            deliver.run()
            mailer.set_mailer(self)
            raise mailer.Undeliverable("what it says now is old news")

    mailer.set_mailer(SleepsTooLong())
    assert deliver.run() == {"sent": 0, "parked": 0, "later": 0}
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}


class Died(BaseException):
    """The process is gone."""


@contextlib.contextmanager
def dying_at(engine: Engine, number: int, *, after: bool) -> Iterator[list[int]]:
    """Die before or after the statement (or commit) of that number; gives the list of those that were reached."""
    reached: list[int] = []

    def count() -> None:
        reached.append(len(reached) + 1)
        if len(reached) == number:
            raise Died

    def on_statement(*_: Any) -> None:
        count()

    name = "after_cursor_execute" if after else "before_cursor_execute"
    event.listen(engine, name, on_statement)
    event.listen(engine, "commit", on_statement)
    try:
        yield reached
    finally:
        event.remove(engine, name, on_statement)
        event.remove(engine, "commit", on_statement)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_statement_loses_no_notice_and_doubles_none(market: Market, tray: Tray, after: bool) -> None:
    """P1, P2: crash at every statement of recording and delivering, then come again."""
    number = 0
    while True:
        number += 1
        tray.letters.clear()
        key = f"ocr_filed:{number}:2:seller"
        promise(key)
        finished = False
        with dying_at(market.simulation.database.engine, number, after=after), contextlib.suppress(Died):
            tell_seller.run()
            deliver.run()
            finished = True
        market.simulation.clock.instant += WEEK / 7
        market.simulation.process_outbox()
        deliver.run()
        assert counts() == {"pending": 0, "sent": number, "parked": 0}, number
        assert len({letter.message_id for letter in tray.letters}) == 1, number
        if finished:
            break
    assert number > 15
