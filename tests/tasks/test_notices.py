"""Notices: every member is notified exactly once, whatever fails on the way."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from models import dead_jobs, notices, outbox
from models.db import database as db
from models.queries.order import show_order_notices
from models.unit_of_work import unit_of_work
from policies.verdicts import OutboxMessage
from schedules.timetable import TIMETABLE
from tasks import mailer
from tasks.mailer import OutgoingEmail
from tasks.notices import deliver_notices, record_seller_notices
from tasks.process_services import services
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from tests.plugins.stored_rows import load_column

KEY = "ocr_filed:1003:2:seller"


class RecordingMailer:
    def __init__(self) -> None:
        self.emails: list[OutgoingEmail] = []

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        self.emails += emails
        return [None] * len(emails)


@pytest.fixture
def recording_mailer() -> Iterator[RecordingMailer]:
    mailer_stub = RecordingMailer()
    services.mailer = mailer_stub
    yield mailer_stub
    services.mailer = None


def enqueue_notices(*keys: str, event_type: str = "ocr_filed", recipient: str = "seller") -> None:
    facts = {"reason": "B_MUTUAL", "comment": "Please."}
    payload = {"event": event_type, "recipient": recipient, "role": "seller", "facts": facts}
    with unit_of_work() as work:
        work.enqueue([OutboxMessage("notices.tell_seller", key, None, payload) for key in keys])


def counts() -> dict[str, int]:
    with db.current_database().transaction() as conn:
        return dict.fromkeys(notices.NOTICE_STATES, 0) | Counter(load_column(conn, notices.NoticeRow.state))


def test_one_outbox_row_is_one_notice_and_one_email(market: Market, recording_mailer: RecordingMailer) -> None:
    for _ in range(2):
        enqueue_notices(KEY)
        market.simulation.process_outbox()
        record_seller_notices.run()
        deliver_notices.run()
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}
    assert [email.email for email in recording_mailer.emails] == ["seller@example.org"]


def test_without_a_mailer_notices_are_marked_sent(market: Market) -> None:
    enqueue_notices(KEY)
    market.simulation.process_outbox()
    assert counts()["sent"] == 1


def test_a_second_request_after_a_decline_is_a_new_event(market: Market, recording_mailer: RecordingMailer) -> None:
    market.at(ORDERED).order()
    for _ in range(2):
        market.done("ocr.file", order_id=1003, member_id="buyer", reason="B_MUTUAL", comment="Please.")
        market.done("ocr.decline", order_id=1003, member_id="seller")
    assert [email.event for email in recording_mailer.emails] == ["ocr_filed", "ocr_declined"] * 2
    assert len({email.message_id for email in recording_mailer.emails}) == 4


def test_the_notices_of_an_order_are_listed_in_order(market: Market) -> None:
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK).done("npb.scan_open_alerts")
    market.done("orders.cancel", order_id=1003, member_id="seller")
    with db.current_database().transaction() as conn:
        listed = show_order_notices(conn, 1003)
        before = show_order_notices(conn, 1003, until=FILED + WEEK / 2)
    assert [(entry["event"], entry["recipient"], entry["state"]) for entry in listed] == [
        ("npb_filed", "buyer", "sent"),
        ("npb_unlocked", "seller", "sent"),
        ("order_cancelled", "seller", "sent"),
        ("order_cancelled", "buyer", "sent"),
        ("credit_posted", "seller", "sent"),
    ]
    assert [entry["event"] for entry in before] == ["npb_filed"]
    assert listed[0]["sent_at"] == "2026-04-04T10:00:00Z"
    assert "Saturday, 11 April 2026, 10:00 (UTC)" in listed[0]["text"].replace("\n", " ")
    assert set(listed[0]) == {"event", "order_id", "recipient", "state", "sent_at", "subject", "text"}


def test_dates_are_in_the_readers_own_zone(market: Market) -> None:
    market.done("members.record", member_id="buyer", handle="Bea", email="b@example.org", time_zone="Asia/Tokyo")
    market.at(ORDERED).order()
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    with db.current_database().transaction() as conn:
        text = show_order_notices(conn, 1003)[0]["text"].replace("\n", " ")
    assert "Saturday, 11 April 2026, 19:00 (Asia/Tokyo, UTC+09:00)" in text


def test_invalid_outbox_message_is_parked_and_delays_no_other(market: Market) -> None:
    enqueue_notices("nonsense:1", event_type="no_such_event")
    enqueue_notices(KEY)
    market.simulation.process_outbox()
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}
    market.simulation.clock.instant += outbox.REPUBLISH_INTERVAL
    market.simulation.process_outbox()
    with db.current_database().transaction() as conn:
        (job,) = dead_jobs.list_waiting_jobs(conn)
    assert (job.task, job.attempts) == ("notices.tell_seller", outbox.MAX_ATTEMPTS)


def test_an_email_that_breaks_the_mailer_does_not_delay_others(market: Market) -> None:
    class Breaks(RecordingMailer):
        def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
            super().send([email for email in emails if email.event != "npb_unlocked"])
            return [ZeroDivisionError("a bug") if email.event == "npb_unlocked" else None for email in emails]

    box = Breaks()
    services.mailer = box
    enqueue_notices("npb_unlocked:1003:5:seller", event_type="npb_unlocked")
    enqueue_notices(KEY)
    market.simulation.process_outbox()
    services.mailer = None
    assert [email.event for email in box.emails] == ["ocr_filed"]
    assert counts() == {"pending": 1, "sent": 1, "parked": 0}


def test_two_workers_send_each_email_once(market: Market, recording_mailer: RecordingMailer, database_url: str) -> None:
    database = db.connect(database_url, pool_size=4)
    database.clock = market.simulation.clock
    db.set_database(database)
    enqueue_notices(*(f"ocr_filed:{n}:2:seller" for n in range(300)))
    record_seller_notices.run()
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        deliver_notices.run()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    db.set_database(market.simulation.database)
    database.dispose()
    assert counts() == {"pending": 0, "sent": 300, "parked": 0}
    assert len(recording_mailer.emails) == len({email.message_id for email in recording_mailer.emails}) == 300


def test_a_worker_whose_lease_expired_marks_nothing(market: Market, recording_mailer: RecordingMailer) -> None:
    enqueue_notices(KEY)
    record_seller_notices.run()
    clock = market.simulation.clock

    class SleepsTooLong(RecordingMailer):
        def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
            clock.instant += WEEK
            services.mailer = recording_mailer
            deliver_notices.run()
            services.mailer = self
            return [mailer.UndeliverableEmail("what it says now is old news") for _ in emails]

    services.mailer = SleepsTooLong()
    assert deliver_notices.run() == {"sent": 0, "parked": 0, "later": 0}
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}


class Died(BaseException):
    pass


@contextlib.contextmanager
def dying_at(engine: Engine, number: int, *, after: bool) -> Iterator[list[int]]:
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
def test_a_crash_at_any_statement_neither_loses_nor_duplicates_a_notice(
    market: Market, recording_mailer: RecordingMailer, after: bool
) -> None:
    number = 0
    while True:
        number += 1
        recording_mailer.emails.clear()
        key = f"ocr_filed:{number}:2:seller"
        enqueue_notices(key)
        finished = False
        with dying_at(market.simulation.database.engine, number, after=after), contextlib.suppress(Died):
            record_seller_notices.run()
            deliver_notices.run()
            finished = True
        market.simulation.clock.instant += WEEK / 7
        market.simulation.process_outbox()
        deliver_notices.run()
        assert counts() == {"pending": 0, "sent": number, "parked": 0}, number
        assert len({email.message_id for email in recording_mailer.emails}) == 1, number
        if finished:
            break
    assert number > 10


def test_a_run_that_leaves_emails_wakes_the_next_one(
    market: Market, recording_mailer: RecordingMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R102: runs are short, and no email waits for a tick."""
    monkeypatch.setattr("tasks.notices.BATCH_SIZE", 2)
    woken: list[str] = []
    enqueue_notices(*(f"ocr_filed:{n}:2:seller" for n in range(5)))
    record_seller_notices.run()
    market.simulation.database.wake = woken.append
    assert [deliver_notices.run()["sent"] for _ in range(3)] == [2, 2, 1]
    assert woken == ["notices.deliver"] * 2


def test_emails_that_a_slow_server_left_no_time_for_are_due_at_once(market: Market) -> None:
    """R102: without an attempt, and after the notices that came later."""

    class Slow(RecordingMailer):
        def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
            self.emails.append(emails[0])
            return [None, *[mailer.MailerOutOfTime("slow") for _ in emails[1:]]]

    box = Slow()
    services.mailer = box
    woken: list[str] = []
    enqueue_notices(*(f"ocr_filed:{n}:2:seller" for n in range(3)))
    record_seller_notices.run()
    market.simulation.database.wake = woken.append
    for left in (2, 1, 0):
        assert deliver_notices.run() == {"sent": 1, "parked": 0, "later": left}
    assert woken == ["notices.deliver"] * 2
    services.mailer = None
    assert len({email.message_id for email in box.emails}) == 3
    assert {notice.attempts for notice in market.notices()} == {1}


def test_recording_wakes_the_delivery_without_an_outbox_row(market: Market, recording_mailer: RecordingMailer) -> None:
    woken: list[str] = []
    market.simulation.database.wake = woken.append
    enqueue_notices(KEY, KEY + "2")
    assert record_seller_notices.run() == {"recorded": 2}
    assert woken == ["notices.tell_seller", "notices.deliver"]
    assert {message.task for message in market.outbox()} == {"notices.tell_seller"}


def test_an_email_whose_wakeup_was_lost_leaves_with_the_next_tick(
    market: Market, recording_mailer: RecordingMailer
) -> None:
    """A worker killed between the commit and the wake-up, or a broker that is away."""
    market.simulation.database.wake = lambda _task: None
    enqueue_notices(KEY)
    record_seller_notices.run()
    assert counts()["pending"] == 1
    (entry,) = [entry for entry in TIMETABLE if entry.name == "notices.deliver"]
    assert entry.every <= timedelta(seconds=5)
    deliver_notices.run()
    assert counts() == {"pending": 0, "sent": 1, "parked": 0}
    assert len(recording_mailer.emails) == 1
