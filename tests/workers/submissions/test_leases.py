"""Tests of claims of submissions and their leases."""

from __future__ import annotations

import contextlib
import re
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from models import submissions
from models.db import database as db
from models.db.schema import table_of
from models.sql import load_sql
from models.submissions import (
    MAX_BATCHED_SUBMISSION_BYTES,
    MAX_SUBMISSION_ATTEMPTS,
    SUBMISSION_LEASE_DURATION,
    Submission,
    SubmissionRow,
)
from tests.plugins.market import FILED, Market
from tests.plugins.sql_interface import submit_command
from tests.waiting import wait_until
from tests.workers.submissions.submitting import outcome_of, set_due
from workers.app import APP_BEAT_ENTRIES
from workers.submissions import consumer


def claimed_ids(claim: tuple[list[Submission], Submission | None]) -> tuple[list[str], str | None]:
    """The request ids of what `claim` returned."""
    small, alone = claim
    return [submission.request_id for submission in small], None if alone is None else alone.request_id


def test_batch_of_a_dead_run_is_repeated_after_its_lease(market: Market, caller: psycopg.Connection) -> None:
    """P1: within half a minute after the last fault, even if a second run dies."""
    market.order(1003)
    submit_command(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "held")
    set_due(caller)
    with db.current_database().transaction() as conn:  # the run has died
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=100)()) == (["held"], None)
    second = timedelta(seconds=1)
    assert market.at(FILED + submissions.SUBMISSION_LEASE_DURATION - second).done("submissions.drain") == {"taken": 0}
    assert market.at(FILED + submissions.SUBMISSION_LEASE_DURATION).done("submissions.drain") == {"taken": 1}
    assert outcome_of(market, "held") == ("answered", "done", None)
    (every,) = [entry.every for entry in APP_BEAT_ENTRIES if entry.name == "submissions.drain"]
    assert 2 * (submissions.SUBMISSION_LEASE_DURATION + every) <= timedelta(seconds=30)


def test_claim_is_bounded_by_bytes(market: Market, caller: psycopg.Connection) -> None:
    """A claim has small payloads and at most one long one; the small ones don't wait for the long ones."""
    for n in range(8):
        submit_command(caller, "npb.file", {"order_id": n, "comment": "x" * MAX_BATCHED_SUBMISSION_BYTES}, f"long{n}")
    for n in range(5):
        submit_command(caller, "npb.file", {"order_id": 10 + n}, f"small{n}")
    set_due(caller)
    with db.current_database().transaction() as conn:
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=4)()) == (
            [f"small{n}" for n in range(4)],
            "long0",
        )
        assert claimed_ids(submissions.send_submissions_claim(conn, FILED, limit=4)()) == (["small4"], "long1")
    assert market.at(FILED + SUBMISSION_LEASE_DURATION).done("submissions.drain") == {"taken": 13}


def test_claim_has_the_conditions_of_its_indexes() -> None:
    claim = re.sub(r"\bs\.", "", load_sql("claim_submissions"))
    indexes = {str(index.name): index for index in table_of(SubmissionRow).indexes}
    for name in ("ix_submissions_due", "ix_submissions_alone"):
        assert str(indexes[name].dialect_options["postgresql"]["where"]) in claim


@pytest.mark.guarantee("P8")
def test_command_that_kills_its_worker_runs_alone_and_is_finally_parked(
    market: Market, caller: psycopg.Connection
) -> None:
    """P8: the others are answered after the first death; an attempt counts before it starts."""
    market.order(1003)
    for n, order_id in enumerate((9, 1003, 8)):
        submit_command(caller, "npb.file", {"order_id": order_id, "member_id": "seller"}, f"r{n}")
    set_due(caller)

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
    assert outcome_of(market, "r0") == ("dead", None, None)
    assert outcome_of(market, "r1") == ("answered", "done", None)
    assert outcome_of(market, "r2") == ("answered", "refused", "ORDER_UNKNOWN")
    (dead,) = market.dead_jobs()
    assert (dead.reason, dead.attempts, dead.arguments) == (
        "WORKER_DIED",
        MAX_SUBMISSION_ATTEMPTS,
        {"request_id": "r0"},
    )
    with db.current_database().transaction() as conn:  # requeued with its payload
        assert submissions.resubmit_dead_submission(conn, "npb.file", dead.arguments, "r0", at)
    assert market.done("submissions.drain") == {"taken": 1}
    assert outcome_of(market, "r0") == ("answered", "refused", "ORDER_UNKNOWN")


def test_lease_is_extended_while_the_batch_runs(
    market: Market, caller: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "LEASE_RENEWAL_INTERVAL", 0.02)
    market.order(1003)
    submit_command(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "slow")
    set_due(caller)
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
    assert outcome_of(market, "slow") == ("answered", "done", None)
