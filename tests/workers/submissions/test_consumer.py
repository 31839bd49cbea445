"""Tests of the consumer of submissions: commit with the caller, execution in batches, answers."""

from __future__ import annotations

import psycopg
import pytest

from models.alerts import AlertRow
from models.submissions import MAX_SUBMISSION_ATTEMPTS, SubmissionRow
from tests.plugins.market import FILED, WEEK, Market
from tests.plugins.sql_interface import submit_command
from tests.workers.submissions.submitting import outcome_of, set_due
from workers.requeue import CannotRequeue, requeue_dead_job
from workers.submissions import consumer


def test_a_submission_commits_or_rolls_back_with_its_caller(market: Market, caller: psycopg.Connection) -> None:
    market.order(1003)
    market.at(FILED)
    command = {"order_id": 1003, "member_id": "seller"}
    submit_command(caller, "npb.file", command, "gone")
    caller.rollback()
    assert submit_command(caller, "npb.file", command, "kept") == {"request_id": "kept", "accepted": True, "code": None}
    set_due(caller)
    assert market.done("submissions.drain") == {"taken": 1}
    assert outcome_of(market, "gone") is None
    assert outcome_of(market, "kept") == ("answered", "done", None)
    assert market.status(1003) == "NPB"


def test_same_request_through_both_interfaces_is_done_once(market: Market, caller: psycopg.Connection) -> None:
    """Other arguments are a conflict."""
    market.order(1003)
    command = {"order_id": 1003, "member_id": "seller"}
    first = market.at(FILED).do("npb.file", request_id="r-1", **command)
    for request_id, payload in (("r-1", command), ("r-1", command)):
        assert submit_command(caller, "npb.file", payload, request_id)["accepted"]
    assert submit_command(caller, "npb.file", command | {"comment": "x"}, "r-1")["code"] == "REQUEST_ID_REUSED"
    set_due(caller)
    market.done("submissions.drain")
    assert market.command_answer("r-1").answer == first | {"replayed": True}
    assert market.count(AlertRow) == 1


def test_commands_about_one_order_run_in_submission_order(market: Market, caller: psycopg.Connection) -> None:
    """First in, first out for each order; an invalid command is answered alone."""
    market.order(1003)
    market.at(FILED)
    steps = ["PROCESSING", "READY", "PAID", "PACKED", "SHIPPED"]
    for n, status in enumerate(steps):
        submit_command(
            caller, "orders.set_status", {"order_id": 1003, "member_id": "seller", "status": status}, f"s{n}"
        )
    submit_command(caller, "orders.set_status", {"order_id": 1003, "member_id": "seller", "status": "NONSENSE"}, "bad")
    submit_command(caller, "orders.set_status", {"order_id": 9, "member_id": "seller", "status": "PAID"}, "unknown")
    set_due(caller)
    assert market.done("submissions.drain") == {"taken": 7}
    assert [event.to_status for event in market.events(type="orders.status_set")] == steps
    assert outcome_of(market, "bad") == ("answered", "invalid", None)
    assert outcome_of(market, "unknown") == ("answered", "refused", "ORDER_UNKNOWN")


def test_a_run_that_ends_before_its_work_wakes_the_next(
    market: Market, caller: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without commits that follow, nothing but the timetable would continue."""
    market.order(1003)
    market.at(FILED)
    for n in (1, 2):
        submit_command(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, f"late-{n}")
    set_due(caller)
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


def test_submission_counts_from_its_insert(market: Market, caller: psycopg.Connection) -> None:
    """However late it is processed."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    submit_command(caller, "orders.cancel", {"order_id": 1003, "member_id": "seller"}, "c")
    set_due(caller, FILED + WEEK)
    market.at(FILED + WEEK + WEEK / 14).done("submissions.drain")
    assert market.stored_order().cancelled_at == FILED + WEEK


def test_only_what_is_stored_elsewhere_is_committed_without_a_flush(market: Market, caller: psycopg.Connection) -> None:
    """A crash of the server may undo leases and copies of answers; effects and answers without a request row, never."""
    submit_command(caller, "npb.file", {"order_id": 1, "member_id": "seller"}, "refused")
    submit_command(caller, "npb.file", {"order_id": 1}, "invalid")
    set_due(caller)
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


def test_command_of_a_newer_release_waits_for_its_worker_and_is_parked_with_the_reason(
    market: Market, caller: psycopg.Connection
) -> None:
    """During a rolling upgrade the schema is newer than some workers."""
    caller.execute("INSERT INTO unwind.commands VALUES ('npb.escalate')")
    submit_command(caller, "npb.escalate", {"order_id": 1, "member_id": "seller"}, "newer")
    submit_command(caller, "members.record", {"member_id": "m", "handle": "M", "email": "m@example.org"}, "known")
    set_due(caller)
    market.at(FILED).done("submissions.drain")
    assert outcome_of(market, "known") == ("answered", "done", None)
    reason = (
        "this worker is older than the command npb.escalate; replace it with one of the release that ran ./run migrate"
    )
    waiting = market.stored_one(SubmissionRow, request_id="newer")
    assert (waiting.state, waiting.attempts, waiting.first_error) == ("waiting", 1, reason)
    caller.execute(
        "UPDATE unwind.submissions SET attempts = %s, due_at = %s WHERE state = 'waiting'",
        [MAX_SUBMISSION_ATTEMPTS - 1, FILED],
    )
    caller.commit()
    market.done("submissions.drain")
    dead = market.stored_one(SubmissionRow, request_id="newer")
    assert (dead.state, dead.attempts, dead.first_error) == ("dead", MAX_SUBMISSION_ATTEMPTS, reason)
    (job,) = market.dead_jobs()
    assert job.error == reason
    with pytest.raises(CannotRequeue, match=r"needs the task npb\.escalate, which this version does not know"):
        requeue_dead_job(market.simulation.database, job.dead_job_id)
