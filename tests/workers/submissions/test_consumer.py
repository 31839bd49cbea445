"""Tests of commands submitted by SQL: commit with the caller, execution in batches, answers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import submissions
from models.alerts import AlertRow
from models.db import database as db
from models.payload_limits import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, MAX_PAYLOAD_PARTS, has_too_many_parts
from models.submissions import (
    MAX_BATCHED_SUBMISSION_BYTES,
    MAX_SUBMISSION_ATTEMPTS,
    SUBMISSION_LEASE_DURATION,
    Submission,
    SubmissionRow,
)
from tasks.declarations import COMMANDS
from tests.plugins.market import FILED, WEEK, Market
from tests.waiting import wait_until
from workers.app import APP_BEAT_ENTRIES, app
from workers.requeue import CannotRequeue, requeue_dead_job
from workers.submissions import consumer
from workers.submissions.listener import Listener


@pytest.fixture
def caller(database_url: str) -> Any:
    """A connection of an upstream system, with a transaction of its own."""
    with psycopg.connect(database_url.replace("postgresql+psycopg://", "postgresql://")) as conn:
        yield conn


def submit(caller: Any, name: str | None, payload: Any, request_id: str | None = None) -> dict[str, Any]:
    row = caller.execute(
        "SELECT unwind.submit_command(%s, %s::jsonb, %s)", [name, json.dumps(payload), request_id]
    ).fetchone()
    answer: dict[str, Any] = row[0]
    return answer


def answer_of(caller: Any, request_id: str) -> Any:
    row = caller.execute(
        "SELECT state, outcome, code FROM unwind.command_answers WHERE request_id = %s", [request_id]
    ).fetchone()
    caller.commit()
    return row


def submit_raw(caller: Any, name: str, payload: str, request_id: str | None = None) -> dict[str, Any]:
    """Submit a payload as the text it is."""
    answer: dict[str, Any] = caller.execute(
        "SELECT unwind.submit_command(%s, %s::text, %s)", [name, payload, request_id]
    ).fetchone()[0]
    return answer


def claimed_ids(claim: tuple[list[Submission], Submission | None]) -> tuple[list[str], str | None]:
    """The request ids of what `claim` returned."""
    small, alone = claim
    return [submission.request_id for submission in small], None if alone is None else alone.request_id


def test_sql_interface_accepts_exactly_the_declared_commands(market: Market, caller: Any) -> None:
    names = caller.execute("SELECT array_agg(name ORDER BY name) FROM unwind.commands").fetchone()[0]
    assert names == sorted(COMMANDS)
    for name in (*names, *(task for task in app.tasks if task not in COMMANDS), None):
        receipt = submit(caller, name, {"order_id": 1, "member_id": "seller"}, f"asked-{name}".replace(" ", "-"))
        assert receipt["code"] == (None if name in COMMANDS else "TASK_UNKNOWN"), name


def test_request_id_as_text_is_the_same_submission(market: Market, caller: Any) -> None:
    """JavaScript rounds numbers above 2^53, so it writes texts; digits in a comment must still count."""
    large = 2**53 + 1
    comment = f'said "order_id": "{large}", ' + r'and \"order_id": "1"'
    for order_id in (str(large), large):
        answer = submit(caller, "npb.respond", {"order_id": order_id, "member_id": "buyer", "comment": comment}, "js-1")
        assert answer == {"request_id": "js-1", "accepted": True, "code": None}
    row = caller.execute("SELECT order_id FROM unwind.submissions WHERE request_id = 'js-1'").fetchone()
    assert row == (large,)
    for change in ({"order_id": large - 1}, {"comment": comment.replace('"1"', "1")}):
        changed = {"order_id": large, "member_id": "buyer", "comment": comment} | change
        assert submit(caller, "npb.respond", changed, "js-1")["code"] == "REQUEST_ID_REUSED"
    payload = {'a\\"order_id': "5", "order_id": "05"}
    submit(caller, "npb.respond", payload, "js-2")
    assert submit(caller, "npb.respond", payload, "js-2")["accepted"]
    changed = {'a\\"order_id': 5, "order_id": "05"}
    assert submit(caller, "npb.respond", changed, "js-2")["code"] == "REQUEST_ID_REUSED"
    lines = [{"lot_id": "9007199254740993", "quantity": 1}]
    submit(caller, "orders.submit", {"order_id": "7", "lines": lines}, "js-3")
    arguments = {"order_id": 7, "lines": [{"lot_id": large, "quantity": 1}]}
    assert submit(caller, "orders.submit", arguments, "js-3")["accepted"]


def test_a_submission_commits_or_rolls_back_with_its_caller(market: Market, caller: Any) -> None:
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
    assert market.status(1003) == "NPB"


def test_same_request_through_both_interfaces_is_done_once(market: Market, caller: Any) -> None:
    """Other arguments are a conflict."""
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
    assert market.count(AlertRow) == 1


def test_commands_about_one_order_run_in_submission_order(market: Market, caller: Any) -> None:
    """First in, first out for each order; an invalid command is answered alone."""
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
    assert [event.to_status for event in market.events(type="orders.status_set")] == steps
    assert answer_of(caller, "bad") == ("answered", "invalid", None)
    assert answer_of(caller, "unknown") == ("answered", "refused", "ORDER_UNKNOWN")


def test_a_run_that_ends_before_its_work_wakes_the_next(
    market: Market, caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without commits that follow, nothing but the timetable would continue."""
    market.order(1003)
    market.at(FILED)
    for n in (1, 2):
        submit(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, f"late-{n}")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    times = iter((0.0, 0.0, consumer.MAX_RUN_SECONDS))
    woken: list[str] = []
    with monkeypatch.context() as patches:
        patches.setattr(consumer, "monotonic", lambda: next(times))
        patches.setattr(market.simulation.database, "wake_at_once", woken.append)
        assert consumer.drain_submissions.run() == {"taken": 1}
        assert "submissions.drain" in woken
    woken.clear()
    with monkeypatch.context() as patches:
        patches.setattr(market.simulation.database, "wake_at_once", woken.append)
        assert consumer.drain_submissions.run() == {"taken": 1}
    assert "submissions.drain" not in woken


def test_submission_counts_from_its_insert(market: Market, caller: Any) -> None:
    """However late it is processed."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    submit(caller, "orders.cancel", {"order_id": 1003, "member_id": "seller"}, "c")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED + WEEK, FILED + WEEK])
    caller.commit()
    market.at(FILED + WEEK + WEEK / 14).done("submissions.drain")
    assert market.stored_order().cancelled_at == FILED + WEEK


def test_batch_of_a_dead_run_is_repeated_after_its_lease(market: Market, caller: Any) -> None:
    """P1: within half a minute after the last fault, even if a second run dies."""
    market.order(1003)
    submit(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "held")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    with db.current_database().transaction() as conn:  # the run has died
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=100)()) == (["held"], None)
    second = timedelta(seconds=1)
    assert market.at(FILED + submissions.SUBMISSION_LEASE_DURATION - second).done("submissions.drain") == {"taken": 0}
    assert market.at(FILED + submissions.SUBMISSION_LEASE_DURATION).done("submissions.drain") == {"taken": 1}
    assert answer_of(caller, "held") == ("answered", "done", None)
    (every,) = [entry.every for entry in APP_BEAT_ENTRIES if entry.name == "submissions.drain"]
    assert 2 * (submissions.SUBMISSION_LEASE_DURATION + every) <= timedelta(seconds=30)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("orders.cancle", ["orders.cancel"]),
        ("npb.fil", ["npb.file"]),
        ("accept_penalty", ["npb.accept_penalty"]),
        ("Qq", []),
        ("x" * 1_000_000, []),
        ("", []),
        (None, []),
    ],
)
def test_an_unknown_task_is_refused_with_similar_names(
    market: Market, caller: Any, name: str | None, suggested: list[str]
) -> None:
    refused = {"request_id": "r", "accepted": False, "code": "TASK_UNKNOWN"}
    assert submit(caller, name, {}, "r") == refused | {"did_you_mean": suggested}


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
def test_bad_submission_is_answered_and_never_raises(
    market: Market, caller: Any, name: str | None, payload: Any, request_id: str, code: str
) -> None:
    """The caller's transaction continues."""
    answer = submit(caller, name, payload, request_id)
    assert (answer["accepted"], answer["code"]) == (False, code)
    assert caller.execute("SELECT count(*) FROM unwind.submissions").fetchone() == (0,)


def test_submitting_role_has_no_other_rights(market: Market, caller: Any) -> None:
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


def test_listener_wakes_at_once_after_a_commit(caller: Any, database_url: str) -> None:
    """By NOTIFY, which a rollback discards."""
    woken = threading.Semaphore(0)
    listener = Listener(database_url, woken.release)
    listener.start()
    try:
        assert listener.listening.wait(10)
        assert woken.acquire(timeout=10)  # once for earlier submissions
        submit(caller, "npb.file", {"order_id": 1, "member_id": "x"})
        caller.commit()
        assert woken.acquire(timeout=10)
    finally:
        listener.close()


def test_many_commits_cause_one_more_wakeup(caller: Any, database_url: str) -> None:
    """One run takes everything that is due; more messages would delay other commands."""
    calls, wakeups, go_on = [0], threading.Semaphore(0), threading.Event()

    def wake() -> None:
        calls[0] += 1
        wakeups.release()
        assert go_on.wait(20)

    listener = Listener(database_url, wake)
    listener.start()
    try:
        assert wakeups.acquire(timeout=10)  # the first call, for earlier submissions, is still running
        for order_id in range(1, 31):
            submit(caller, "npb.file", {"order_id": order_id, "member_id": "x"})
            caller.commit()
        go_on.set()
        assert wakeups.acquire(timeout=10)
        while wakeups.acquire(timeout=1.0):
            pass
        assert calls[0] <= 4, "one before, one for all of them; two more if the network cut them into pieces"
    finally:
        go_on.set()
        listener.close()


# -- hostile payloads --------------------------------------------------------------------------------------------------


def due(caller: Any) -> None:
    """Set the time from which all submissions count and are due."""
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()


UNREADABLE = {
    "an integer of 4,301 digits": '{"order_id": ' + "9" * 4301 + ', "member_id": "seller"}',
    "an integer of 100,000 digits": '{"order_id": ' + "9" * 100_000 + ', "member_id": "seller"}',
    "1e5000": '{"order_id": 1e5000, "member_id": "seller"}',
    "1e131071": '{"order_id": 1e131071, "member_id": "seller"}',
    "1e-16383": '{"order_id": 1e-16383, "member_id": "seller"}',
    "seven levels": '{"order_id": 1003, "member_id": ' + "[" * 7 + "]" * 7 + "}",
}


@pytest.mark.guarantee("P8")
@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE)
def test_unparsable_payload_is_answered_invalid_and_stops_no_other(market: Market, caller: Any, payload: str) -> None:
    """P8: the next command of its batch is done."""
    market.order(1003)
    market.at(FILED)
    assert submit_raw(caller, "npb.file", payload, "absurd")["accepted"]
    submit(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "healthy")
    due(caller)
    assert market.done("submissions.drain") == {"taken": 2}
    assert answer_of(caller, "absurd") == ("answered", "invalid", None)
    assert answer_of(caller, "healthy") == ("answered", "done", None)


HUGE = {
    "too long": ('{"comment": "' + "x" * MAX_PAYLOAD_BYTES + '"}', "PAYLOAD_TOO_LARGE"),
    "lists": ('{"orders": [' + ",".join(["[]"] * 5_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "numbers": ('{"orders": [' + ",".join(["1"] * 8_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "texts": ('{"orders": [' + ",".join(['""'] * 5_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "escaped quotes that never end": ('{"comment": "' + '\\"' * 8_000_000, "PAYLOAD_INVALID"),
    "brackets that never end": ("[" * 16_000_000, "PAYLOAD_TOO_LARGE"),
    "1,500 levels": ('{"a":' * 1_500 + "1" + "}" * 1_500, "PAYLOAD_TOO_DEEP"),
    "24,000 levels": ('{"a":' + "[" * 24_000 + "]" * 24_000 + "}", "PAYLOAD_TOO_DEEP"),
    "levels that never end": ('{"a":' + "[" * 45_000, "PAYLOAD_TOO_DEEP"),
    "NUL": ('{"comment": "\\u0000"}', "PAYLOAD_INVALID"),
    "an unpaired surrogate": ('{"comment": "\\ud800"}', "PAYLOAD_INVALID"),
    "no JSON": ("hello", "PAYLOAD_INVALID"),
    "nothing": ("", "PAYLOAD_INVALID"),
    "NaN": ('{"order_id": NaN}', "PAYLOAD_INVALID"),
}


@pytest.mark.parametrize(("payload", "code"), HUGE.values(), ids=HUGE)
def test_large_deep_or_malformed_payload_is_refused_at_submission(
    market: Market, caller: Any, payload: str, code: str
) -> None:
    """In SQL, without an error, with memory of the payload's size."""
    before = time.monotonic()
    assert submit_raw(caller, "orders.cancel_many", payload, "r") == {
        "request_id": "r",
        "accepted": False,
        "code": code,
    }
    assert time.monotonic() - before < 20
    assert caller.execute("SELECT count(*) FROM unwind.submissions").fetchone() == (0,)


@pytest.mark.parametrize("number", ["1e131071", "-1e131071", "1e-16383", "0." + "1" * 5000, "7" * 5000])
def test_jsonb_that_expands_a_thousandfold_is_refused(caller: Any, number: str) -> None:
    """Twelve bytes of jsonb can be 128 KB of text."""
    answer = caller.execute(
        "SELECT unwind.submit_command('orders.cancel_many', jsonb_build_object('orders', "
        "jsonb_agg(CAST(%s AS jsonb))), 'r') "
        "FROM generate_series(1, 90000)",
        [number],
    ).fetchone()
    assert answer[0]["accepted"] is False
    assert answer[0]["code"] in ("PAYLOAD_INVALID", "PAYLOAD_TOO_LARGE")


def test_submit_accepts_jsonb_text_and_literals(market: Market, caller: Any) -> None:
    """Named arguments work with each."""
    for argument in ("'{\"order_id\": 1}'", "CAST('{\"order_id\": 1}' AS text)", "jsonb_build_object('order_id', 1)"):
        positional = caller.execute(f"SELECT unwind.submit_command('npb.file', {argument}, 'same')").fetchone()
        query = caller.execute(
            f"SELECT unwind.submit_command(name => 'npb.file', payload => {argument}, request_id => 'same')"
        ).fetchone()
        row = caller.execute(f"SELECT unwind.submit_command('npb.file', {argument})").fetchone()
        assert (positional[0], query[0]) == ({"request_id": "same", "accepted": True, "code": None},) * 2
        assert row[0]["accepted"]
        assert len(row[0]["request_id"]) == 36


def test_payload_with_commas_and_brackets_in_text_is_accepted(market: Market, caller: Any) -> None:
    """Only brackets and commas outside strings count."""
    comment = "[],{}" * 400
    items = [{"order_id": n, "member_id": "seller", "comment": comment + '"\\'} for n in range(1, 1001)]
    raw = json.dumps({"orders": items})
    assert not has_too_many_parts(raw.encode())
    assert submit_raw(caller, "orders.cancel_many", raw, "words")["accepted"]
    due(caller)
    market.at(FILED).done("submissions.drain")
    assert answer_of(caller, "words") == ("answered", "done", None)


def test_only_what_is_stored_elsewhere_is_committed_without_a_flush(market: Market, caller: Any) -> None:
    """A crash of the server may undo leases and copies of answers; effects and answers without a request row, never."""
    submit(caller, "npb.file", {"order_id": 1, "member_id": "seller"}, "refused")
    submit(caller, "npb.file", {"order_id": 1}, "invalid")
    due(caller)
    caller.execute("UPDATE unwind.submissions SET due_at = %s WHERE request_id = 'invalid'", [FILED + WEEK])
    caller.execute("CREATE TABLE public.commits (what text, flushed text)")
    caller.execute(
        """
        CREATE FUNCTION public.record_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO public.commits VALUES (
                CASE TG_TABLE_NAME WHEN 'requests' THEN 'effects'
                ELSE coalesce(to_jsonb(NEW) #>> '{answer,outcome}', 'lease') END,
                current_setting('synchronous_commit'));
            RETURN NULL;
        END $$
        """
    )
    for table, event in (("requests", "INSERT"), ("submissions", "UPDATE")):
        caller.execute(
            f"CREATE TRIGGER recorded AFTER {event} ON unwind.{table} FOR EACH ROW EXECUTE FUNCTION record_commit()"
        )
    database = caller.info.dbname
    caller.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = on')
    caller.commit()
    market.simulation.database.dispose()
    market.at(FILED).done("submissions.drain")
    market.at(FILED + WEEK).done("submissions.drain")
    assert set(caller.execute("SELECT what, flushed FROM public.commits").fetchall()) == {
        ("lease", "off"),
        ("effects", "on"),
        ("refused", "off"),
        ("invalid", "on"),
    }


def test_claim_is_bounded_by_bytes(market: Market, caller: Any) -> None:
    """A claim has small payloads and at most one long one; the small ones don't wait for the long ones."""
    for n in range(8):
        submit(caller, "npb.file", {"order_id": n, "comment": "x" * MAX_BATCHED_SUBMISSION_BYTES}, f"long{n}")
    for n in range(5):
        submit(caller, "npb.file", {"order_id": 10 + n}, f"small{n}")
    due(caller)
    with db.current_database().transaction() as conn:
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=4)()) == (
            [f"small{n}" for n in range(4)],
            "long0",
        )
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=4)()) == (["small4"], "long1")
    assert market.at(FILED + SUBMISSION_LEASE_DURATION).done("submissions.drain") == {"taken": 13}


def test_command_of_a_newer_release_waits_for_its_worker_and_is_parked_with_the_reason(
    market: Market, caller: Any
) -> None:
    """During a rolling upgrade the schema is newer than some workers."""
    caller.execute("INSERT INTO unwind.commands VALUES ('npb.escalate')")
    submit(caller, "npb.escalate", {"order_id": 1, "member_id": "seller"}, "newer")
    submit(caller, "members.record", {"member_id": "m", "handle": "M", "email": "m@example.org"}, "known")
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [FILED, FILED])
    caller.commit()
    market.at(FILED).done("submissions.drain")
    assert answer_of(caller, "known") == ("answered", "done", None)
    row = "SELECT state, attempts, first_error FROM unwind.submissions WHERE request_id = 'newer'"
    reason = (
        "this worker is older than the command npb.escalate; replace it with one of the release that ran ./run migrate"
    )
    assert caller.execute(row).fetchone() == ("waiting", 1, reason)
    caller.execute(
        "UPDATE unwind.submissions SET attempts = %s, due_at = %s WHERE state = 'waiting'",
        [MAX_SUBMISSION_ATTEMPTS - 1, FILED],
    )
    caller.commit()
    market.done("submissions.drain")
    assert caller.execute(row).fetchone() == ("dead", MAX_SUBMISSION_ATTEMPTS, reason)
    (dead,) = market.dead_jobs()
    assert dead.error == reason
    with pytest.raises(CannotRequeue, match=r"needs the task npb\.escalate, which this version does not know"):
        requeue_dead_job(market.simulation.database, dead.dead_job_id)


@pytest.mark.guarantee("P8")
def test_command_that_kills_its_worker_runs_alone_and_is_finally_parked(market: Market, caller: Any) -> None:
    """P8: the others are answered after the first death; an attempt counts before it starts."""
    market.order(1003)
    for n, order_id in enumerate((9, 1003, 8)):
        submit(caller, "npb.file", {"order_id": order_id, "member_id": "seller"}, f"r{n}")
    due(caller)

    def die(at: Any) -> tuple[list[str], str | None]:
        with db.current_database().transaction() as conn:
            return claimed_ids(submissions.send_submissions_claim(conn, at, limit=100)())

    at = FILED
    assert die(at) == (["r0", "r1", "r2"], None)
    for _ in range(MAX_SUBMISSION_ATTEMPTS - 1):
        at += SUBMISSION_LEASE_DURATION
        assert die(at) == ([], "r0"), "alone, and as the first it kills again"
        if at == FILED + SUBMISSION_LEASE_DURATION:
            assert market.at(at).done("submissions.drain") == {"taken": 2}, "while the other is on lease"
    assert market.at(at + SUBMISSION_LEASE_DURATION).done("submissions.drain") == {"taken": 0}
    assert answer_of(caller, "r0") == ("dead", None, None)
    assert answer_of(caller, "r1") == ("answered", "done", None)
    assert answer_of(caller, "r2") == ("answered", "refused", "ORDER_UNKNOWN")
    (dead,) = market.dead_jobs()
    assert (dead.reason, dead.attempts, dead.arguments) == (
        "WORKER_DIED",
        MAX_SUBMISSION_ATTEMPTS,
        {"request_id": "r0"},
    )
    with db.current_database().transaction() as conn:  # requeued with its payload
        assert submissions.resubmit_dead_submission(conn, "npb.file", dead.arguments, "r0", at)
    assert market.done("submissions.drain") == {"taken": 1}
    assert answer_of(caller, "r0") == ("answered", "refused", "ORDER_UNKNOWN")


def test_lease_is_extended_while_the_batch_runs(
    market: Market, caller: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "LEASE_RENEWAL_INTERVAL", 0.02)
    market.order(1003)
    submit(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "slow")
    due(caller)
    begun, go_on = threading.Event(), threading.Event()
    body = consumer._execute_submitted_batch

    def slowly(task: str, claim: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return body(task, claim)

    monkeypatch.setattr(consumer, "_execute_submitted_batch", slowly)
    market.at(FILED)
    worker = threading.Thread(target=lambda: market.done("submissions.drain"))
    worker.start()
    try:
        assert begun.wait(20)
        market.at(FILED + SUBMISSION_LEASE_DURATION)
        wait_until(lambda: market.stored(SubmissionRow)[0].due_at == FILED + 2 * SUBMISSION_LEASE_DURATION)
        beside = db.connect(database_url)
        with contextlib.ExitStack() as closing:
            closing.callback(beside.dispose)
            conn = closing.enter_context(beside.transaction())
            claim = submissions.send_submissions_claim(conn, FILED + SUBMISSION_LEASE_DURATION, limit=100)
            assert claimed_ids(claim()) == ([], None)
    finally:
        go_on.set()
        worker.join(20)
    assert answer_of(caller, "slow") == ("answered", "done", None)


_WORDS = st.sampled_from(("order_id", "member_id", "request_id", "comment", "orders", "removal_id", "draft_id"))
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated_payloads(draw: st.DrawFn) -> str:
    """JSON with replaced characters, long numbers, and malformed texts."""
    text = json.dumps(draw(st.dictionaries(_WORDS, _JSON, max_size=5)), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(("9" * 4400, "1e9999", "[" * 30, "\\u0000", '"', "\\", ",", "}", "NaN", "\u2028")))
        text = text[:at] + piece + text[at + draw(st.integers(0, 2)) :]
    return text


def _is_answered_or_refused(market: Market, caller: Any, payloads: list[str]) -> None:
    accepted = []
    for n, payload in enumerate(payloads):
        answer = submit_raw(
            caller, "npb.file", payload.encode("utf-8", "replace").decode().replace("\x00", ""), f"any{n}"
        )
        assert answer["accepted"] is (answer["code"] is None)
        accepted += [f"any{n}"] if answer["accepted"] else []
    due(caller)
    market.at(FILED).done("submissions.drain")
    for request_id in accepted:
        assert answer_of(caller, request_id)[0] == "answered"
    with caller.transaction():
        caller.execute("ALTER TABLE unwind.submissions DISABLE TRIGGER USER")
        caller.execute("DELETE FROM unwind.submissions")
        caller.execute("ALTER TABLE unwind.submissions ENABLE TRIGGER USER")
    caller.commit()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(payloads=st.lists(mutated_payloads() | st.text(max_size=50), min_size=1, max_size=5))
def test_any_payload_is_refused_or_answered(market: Market, caller: Any, payloads: list[str]) -> None:
    _is_answered_or_refused(market, caller, payloads)


@pytest.mark.long
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(payloads=st.lists(mutated_payloads() | st.text(max_size=50), min_size=1, max_size=5))
def test_thousands_of_payloads_are_refused_or_answered(market: Market, caller: Any, payloads: list[str]) -> None:
    _is_answered_or_refused(market, caller, payloads)


@settings(max_examples=300, deadline=None)
@given(_JSON)
def test_counted_parts_match_parsed_parts(document: Any) -> None:
    """Counting without parsing agrees with the parsed document."""

    def parts(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        inner = value.values() if isinstance(value, dict) else value
        return 2 + max(0, len(value) - 1) + sum(map(parts, inner))

    counted = parts(document)
    with pytest.MonkeyPatch.context() as patched:
        for limit, too_many in ((counted, False), (counted - 1, True)):
            patched.setattr("models.payload_limits.MAX_PAYLOAD_PARTS", limit)
            for ascii_only in (True, False):
                raw = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
                assert has_too_many_parts(raw) is too_many


def test_depth_and_parts_at_their_bounds(caller: Any) -> None:
    deep = '{"a":' * (MAX_PAYLOAD_DEPTH - 1) + "1" + "}" * (MAX_PAYLOAD_DEPTH - 1)
    assert submit_raw(caller, "npb.file", deep, "deep")["accepted"]
    assert submit_raw(caller, "npb.file", '{"a":' + deep + "}", "deeper")["code"] == "PAYLOAD_TOO_DEEP"
    wide = '{"a":[' + ",".join(["1"] * (MAX_PAYLOAD_PARTS - 3)) + "]}"
    assert submit_raw(caller, "npb.file", wide, "wide")["accepted"]
    assert submit_raw(caller, "npb.file", wide.replace("[", "[1,"), "wider")["code"] == "PAYLOAD_TOO_LARGE"
