"""What becomes of a command that was submitted by SQL?  It commits with its caller, is taken once, and is answered."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models import session, submissions
from schedules.timetable import TIMETABLE
from tests.plugins.market import FILED, WEEK, Market
from workers.app import app
from workers.job import command_of
from workers.listen import Listener


@pytest.fixture
def caller(database_url: str) -> Any:
    """A connection of somebody else's, with a transaction of its own."""
    with psycopg.connect(database_url.replace("postgresql+psycopg://", "postgresql://")) as conn:
        yield conn


def submit(caller: Any, name: str | None, payload: Any, request_id: str | None = None) -> dict[str, Any]:
    said = caller.execute(
        "SELECT unwind.submit_command(%s, %s::jsonb, %s)", [name, json.dumps(payload), request_id]
    ).fetchone()
    answer: dict[str, Any] = said[0]
    return answer


def answer_of(caller: Any, request_id: str) -> Any:
    row = caller.execute(
        "SELECT state, outcome, code FROM unwind.command_answers WHERE request_id = %s", [request_id]
    ).fetchone()
    caller.commit()
    return row


def test_the_door_takes_exactly_the_public_commands() -> None:
    """The frozen names of the door are the tasks that have an argument model."""
    public = {
        name for name, task in app.tasks.items() if not name.startswith("celery.") and command_of(task) is not None
    }
    assert set(submissions.PUBLIC_TASKS) == public


def test_an_id_written_as_text_is_the_same_submission(market: Market, caller: Any) -> None:
    """contract 2: JavaScript rounds numbers above 2^53, so it writes texts; the number is kept, whatever stands in comments."""
    large = 2**53 + 1
    comment = f'said "order_id": "{large}", ' + r'and \"order_id": "1"'
    for order_id in (str(large), large):
        said = submit(caller, "npb.respond", {"order_id": order_id, "member_id": "buyer", "comment": comment}, "js-1")
        assert said == {"request_id": "js-1", "accepted": True, "code": None}
    row = caller.execute("SELECT payload, order_id FROM unwind.submissions WHERE request_id = 'js-1'").fetchone()
    assert row == ({"order_id": large, "member_id": "buyer", "comment": comment}, large)
    odd = {'a\\"order_id': "5", "order_id": "05"}
    submit(caller, "npb.respond", odd, "js-2")
    row = caller.execute("SELECT payload FROM unwind.submissions WHERE request_id = 'js-2'").fetchone()
    assert row[0] == odd
    lines = [{"lot_id": "9007199254740993", "quantity": 1}]
    submit(caller, "orders.submit", {"order_id": "7", "lines": lines}, "js-3")
    same = {"order_id": 7, "lines": [{"lot_id": large, "quantity": 1}]}
    assert submit(caller, "orders.submit", same, "js-3")["accepted"]


def test_a_submission_commits_or_rolls_back_with_its_caller(market: Market, caller: Any) -> None:
    """What the caller takes back was never submitted; what it commits is done and answered."""
    market.order(1003)
    market.at(FILED)
    command = {"order_id": 1003, "member_id": "seller"}
    submit(caller, "npb.file", command, "gone")
    caller.rollback()
    assert submit(caller, "npb.file", command, "kept") == {"request_id": "kept", "accepted": True, "code": None}
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    assert market.done("submissions.drain") == {"taken": 1}
    assert answer_of(caller, "gone") is None
    assert answer_of(caller, "kept") == ("answered", "done", None)
    assert market.row("SELECT status FROM unwind.orders").status == "NPB"


def test_the_same_request_through_both_doors_is_one(market: Market, caller: Any) -> None:
    """contract 2.1: one effect, the same answer again; other arguments are a conflict."""
    market.order(1003)
    command = {"order_id": 1003, "member_id": "seller"}
    first = market.at(FILED).do("npb.file", request_id="r-1", **command)
    for request_id, payload in (("r-1", command), ("r-1", command)):
        assert submit(caller, "npb.file", payload, request_id)["accepted"]
    assert submit(caller, "npb.file", command | {"comment": "x"}, "r-1")["code"] == "REQUEST_ID_REUSED"
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    market.done("submissions.drain")
    row = caller.execute("SELECT answer FROM unwind.command_answers WHERE request_id = 'r-1'").fetchone()
    assert row[0] == first | {"replayed": True}
    assert market.row("SELECT count(*) AS n FROM unwind.alerts").n == 1


def test_commands_about_one_order_are_taken_in_their_order(market: Market, caller: Any) -> None:
    """First in, first out per order, however many are drained at once; a bad one among them is answered by itself."""
    market.order(1003)
    market.at(FILED)
    steps = ["PROCESSING", "READY", "PAID", "PACKED", "SHIPPED"]
    for n, status in enumerate(steps):
        submit(caller, "orders.set_status", {"order_id": 1003, "member_id": "seller", "status": status}, f"s{n}")
    submit(caller, "orders.set_status", {"order_id": 1003, "member_id": "seller", "status": "NONSENSE"}, "bad")
    submit(caller, "orders.set_status", {"order_id": 9, "member_id": "seller", "status": "PAID"}, "unknown")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    assert market.done("submissions.drain") == {"taken": 7}
    told = market.rows("SELECT to_status FROM unwind.events WHERE type = 'orders.status_set' ORDER BY seq")
    assert [r.to_status for r in told] == steps
    assert answer_of(caller, "bad") == ("answered", "invalid", None)
    assert answer_of(caller, "unknown") == ("answered", "refused", "ORDER_UNKNOWN")


def test_a_submission_counts_from_its_insert(market: Market, caller: Any) -> None:
    """contract 2: the SQL door uses the instant of its insert, however late it is drained."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    submit(caller, "orders.cancel", {"order_id": 1003, "member_id": "seller"}, "c")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED + WEEK, FILED + WEEK])
    caller.commit()
    market.at(FILED + WEEK + WEEK / 14).done("submissions.drain")
    assert market.row("SELECT cancelled_at FROM unwind.orders").cancelled_at == FILED + WEEK


def test_a_set_whose_drain_died_is_taken_by_the_next_tick_after_its_lease(market: Market, caller: Any) -> None:
    """P1: all is done within half a minute after the last fault, though it kill the second drain of a set as well."""
    market.order(1003)
    submit(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "held")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    with session.bound().transaction() as conn:  # and then that drain is no more
        assert [s.request_id for s in submissions.claim(conn, FILED, limit=100)] == ["held"]
    second = timedelta(seconds=1)
    assert market.at(FILED + submissions.LEASE - second).done("submissions.drain") == {"taken": 0}
    assert market.at(FILED + submissions.LEASE).done("submissions.drain") == {"taken": 1}
    assert answer_of(caller, "held") == ("answered", "done", None)
    (every,) = [entry.every for entry in TIMETABLE if entry.task == "submissions.drain"]
    assert 2 * (submissions.LEASE + every) <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("name", "payload", "request_id", "code"),
    [
        (None, {}, "r", "TASK_UNKNOWN"),
        ("orders.destroy", {}, "r", "TASK_UNKNOWN"),
        ("npb.scan_open_alerts", {}, "r", "TASK_UNKNOWN"),
        ("npb.file", [], "r", "PAYLOAD_INVALID"),
        ("npb.file", "text", "r", "PAYLOAD_INVALID"),
        ("npb.file", None, "r", "PAYLOAD_INVALID"),
        ("npb.file", {"request_id": "other"}, "r", "PAYLOAD_INVALID"),
        ("npb.file", {}, "with space", "REQUEST_ID_INVALID"),
        ("npb.file", {}, "", "REQUEST_ID_INVALID"),
        ("npb.file", {}, "x" * 129, "REQUEST_ID_INVALID"),
        ("npb.file", {}, "new\nline", "REQUEST_ID_INVALID"),
        ("npb.file", {"comment": "x" * (17 * 2**20)}, "r", "PAYLOAD_TOO_LARGE"),
    ],
)
def test_a_bad_submission_is_answered_and_never_raises(
    market: Market, caller: Any, name: str | None, payload: Any, request_id: str, code: str
) -> None:
    """The caller's transaction goes on; nothing was accepted."""
    answer = submit(caller, name, payload, request_id)
    assert (answer["accepted"], answer["code"]) == (False, code)
    assert caller.execute("SELECT count(*) FROM unwind.submissions").fetchone() == (0,)


def test_the_submitting_role_can_do_nothing_else(market: Market, caller: Any) -> None:
    """It calls one function; tables, views and the feed are closed to it."""
    caller.execute("SET ROLE unwind_submit")
    assert submit(caller, "npb.file", {"order_id": 1, "member_id": "x"})["accepted"]
    caller.commit()
    for statement in (
        "SELECT * FROM unwind.orders",
        "SELECT * FROM unwind.submissions",
        "DELETE FROM unwind.submissions",
        "SELECT * FROM unwind.events_after(NULL, 1)",
        "CREATE TABLE unwind.x (y int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute(statement)
        caller.rollback()


def test_a_commit_with_a_submission_is_heard_at_once(caller: Any, database_url: str) -> None:
    """NOTIFY wakes the listener; a transaction that is taken back does not."""
    woken = threading.Semaphore(0)
    listener = Listener(database_url, woken.release)
    listener.start()
    try:
        assert listener.listening.wait(10)
        assert woken.acquire(timeout=10)  # once for whatever came before
        submit(caller, "npb.file", {"order_id": 1, "member_id": "x"})
        caller.commit()
        assert woken.acquire(timeout=10)
    finally:
        listener.close()


def test_many_commits_while_the_drain_is_being_woken_wake_it_once_more(caller: Any, database_url: str) -> None:
    """A drain takes everything that is due, so a message for each commit would only keep other commands waiting."""
    calls, told, go_on = [0], threading.Semaphore(0), threading.Event()

    def wake() -> None:
        calls[0] += 1
        told.release()
        assert go_on.wait(20)

    listener = Listener(database_url, wake)
    listener.start()
    try:
        assert told.acquire(timeout=10)  # the first call, for whatever came before, does not end yet
        for order_id in range(1, 31):
            submit(caller, "npb.file", {"order_id": order_id, "member_id": "x"})
            caller.commit()
        go_on.set()
        assert told.acquire(timeout=10)
        while told.acquire(timeout=1.0):
            pass
        assert calls[0] <= 4, "one before, one for all of them; two more if the network cut them into pieces"
    finally:
        go_on.set()
        listener.close()
