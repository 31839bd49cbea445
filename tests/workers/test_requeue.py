"""Tests of requeueing and discarding dead jobs and dead letters."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner, Result
from sqlalchemy.exc import IntegrityError

from models import dead_jobs, dead_letters, outbox, submissions
from models.alerts import AlertRow
from models.events import EventRow
from models.submissions import SubmissionRow
from policies.verdicts import OutboxMessage
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url
from tests.plugins.sql_interface import submit_command
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until
from tests.workers.transport.hostile_messages import message
from workers import task as job
from workers.app import app
from workers.cli.jobs import jobs
from workers.errors import SanitizedError
from workers.settings import CHECKOUT
from workers.simulation.engine import Simulation
from workers.transport.dead_letters import pending_letter
from workers.transport.validation import Rejected


@pytest.fixture
def market(environment: Simulation, database_rows: DatabaseRows) -> Market:
    """Unpaid orders of eight days ago: `./run` works at the current time."""
    environment.clock.instant = now = database_rows.server_time()
    seeded = Market(environment).at(now - timedelta(days=8))
    for order_id in (1, 2, 3):
        seeded.order(order_id)
    return seeded.at(now)


def parked(market: Market, order_id: int, **fields: Any) -> int:
    """A parked command."""
    known: dict[str, Any] = {
        "task": "npb.file",
        "message_id": f"m-{order_id}",
        "arguments": {"order_id": order_id, "member_id": "seller"},
        "error": "OperationalError",
        "attempts": 9,
        "now": market.simulation.clock.instant,
    }
    with market.simulation.database.transaction() as conn:
        return dead_jobs.park_job(conn, **(known | fields))


def replay(*words: object) -> Result:
    """`./run jobs replay …`."""
    return CliRunner().invoke(jobs, ["replay", *(str(word) for word in words)])


def drained(market: Market) -> None:
    """Process the submissions that are due now."""
    market.at(market.server_time()).do("submissions.drain")


def test_requeued_command_keeps_its_request_id_and_needs_no_message(market: Market, broker_url: str) -> None:
    """P1, P2: the broker is emptied, and an effect from before is not repeated."""
    number = parked(market, 1)
    done = replay(number)
    assert (done.exit_code, "npb.file is requeued" in done.output) == (0, True), done.output
    with redis.Redis.from_url(broker_url) as broker:
        broker.flushdb()
    drained(market)
    answer = market.command_answer("m-1")
    assert (answer.state, answer.outcome) == ("answered", "done")
    assert "already" in replay(number).output
    parked(market, 1)
    assert replay("--all").exit_code == 0
    drained(market)
    assert market.count(EventRow, type="npb.filed") == 1


@pytest.mark.guarantee("P8")
def test_many_jobs_are_requeued_at_once_and_one_failure_stops_no_other(market: Market) -> None:
    """P8: by task, or all; a job that can't be requeued stays, with a reason."""
    filings = [parked(market, order_id) for order_id in (1, 2, 3)]
    strange = parked(market, 4, task="npb.of_another_version")
    assert replay("--task", "ocr.file").output == "There are no such dead jobs.\n"
    done = replay("--task", "npb.file")
    assert [line.split()[0] for line in done.output.splitlines()] == [str(number) for number in filings]
    again = parked(market, 1, message_id="m-4")
    done = replay("--all")
    assert (done.exit_code, f"{again}  npb.file" in done.output, "does not know" in done.output) == (1, True, True)
    with market.simulation.database.transaction() as conn:
        assert [waiting.dead_job_id for waiting in dead_jobs.list_waiting_jobs(conn)] == [strange]
    drained(market)
    assert market.count(AlertRow) == 3
    assert replay().exit_code == replay(1, "--all").exit_code == 2


def test_requeued_sql_command_is_answered_through_sql(market: Market, database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url)) as conn:
        submit_command(conn, "npb.file", {"order_id": 1, "member_id": "seller"}, "r-1")
    with market.simulation.database.transaction() as conn:
        then = market.simulation.clock.now(conn).replace(year=2100)
        (submission,), _ = submissions.send_submissions_claim(conn, then, limit=9)()
        for attempt in range(submissions.MAX_SUBMISSION_ATTEMPTS):
            retried = submission._replace(attempts=attempt + 1)
            first = submissions.record_submission_failure(
                conn, retried, f"Error {attempt}", market.simulation.clock.instant
            )
    assert first == "Error 0"
    number = parked(
        market, 1, message_id="r-1", first_error=first, arguments=json.loads(submission.payload) | {"request_id": "r-1"}
    )
    assert replay(number).exit_code == 0
    drained(market)
    assert market.command_answer("r-1").state == "answered"


def test_requeued_outbox_message_and_email_are_due_again(market: Market) -> None:
    market.do("npb.file", order_id=1, member_id="seller")
    with market.simulation.database.transaction() as conn:
        outbox.enqueue_messages(
            conn, [OutboxMessage("removals.cancel_pending", "k", 1)], market.simulation.clock.instant
        )
    (row,) = market.outbox(key="k")
    with market.simulation.database.transaction() as conn:
        now = market.simulation.clock.instant
        outbox.record_outbox_failure(conn, row.outbox_id, "KeyError", now, is_final=True)
    dead_job = market.stored_one(dead_jobs.DeadJobRow, outbox_id=row.outbox_id).dead_job_id
    notice_id = market.notices()[0].notice_id
    market.rows(
        "UPDATE unwind.notices SET state = 'parked', next_try_at = NULL, sent_at = NULL "
        "WHERE notice_id = :id RETURNING 1",
        id=notice_id,
    )
    parked_notice = parked(
        market, 1, task="notices.deliver", arguments={"notice_id": notice_id}, reason="UNDELIVERABLE"
    )
    assert replay(dead_job, parked_notice).exit_code == 0
    assert [message.state for message in market.outbox(key="k")] == ["due"]
    market.simulation.advance(market.server_time())
    assert market.notices()[0].state == "sent"


def test_dead_job_with_changed_arguments_is_not_requeued(market: Market, database_url: str) -> None:
    """P1: the hash of the parked arguments must match."""
    number = parked(market, 1)
    with psycopg.connect(libpq_url(database_url)) as owner:
        owner.execute('UPDATE unwind.dead_jobs SET arguments = \'{"order_id": 2, "member_id": "seller"}\'')
    assert "arguments were changed" in replay(number).output
    with market.simulation.database.transaction() as conn:
        assert [waiting.dead_job_id for waiting in dead_jobs.list_waiting_jobs(conn)] == [number]


def test_every_dead_job_has_a_reason(market: Market) -> None:
    """P1: the database requires reason, first and last error, and hash."""
    parked(market, 1, first_error="KeyError", error="TypeError", reason="WORKER_DIED")
    job = json.loads(CliRunner().invoke(jobs, ["dead", "--json"]).output)
    assert (job["reason"], job["first_error"], job["error"]) == ("WORKER_DIED", "KeyError", "TypeError")
    output = CliRunner().invoke(jobs, ["dead"]).output
    assert "its worker died at every attempt, tried 9 times: TypeError" in output
    assert "at first: KeyError" in output
    parked(market, 2, error="")
    with pytest.raises(IntegrityError):
        parked(market, 3, reason="BECAUSE")
    assert market.dead_jobs(error="no message")


def test_first_error_is_kept_through_all_retries(
    environment: Simulation, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: across messages; an unprintable header of a foreign client is ignored."""
    errors = iter(["first", "second"])
    task = app.tasks["npb.file"]

    def fails(*_: Any, **__: Any) -> None:
        raise type(next(errors).title(), (Exception,), {})

    monkeypatch.setattr(job.BaseTask, "validate_and_run", fails)
    monkeypatch.setattr(job, "MAX_RETRIES", 1)
    result = task.apply(kwargs={"order_id": 1, "member_id": "s"}, task_id="m-1", throw=False)
    assert isinstance(result.result, SanitizedError)
    with environment.database.transaction() as conn:
        (dead,) = dead_jobs.list_waiting_jobs(conn)
    assert dead.first_error.startswith("First at")
    assert dead.error.startswith("Second at")
    assert (dead.attempts, dead.reason) == (2, "FAILED")


def test_discarded_job_stays_on_record_with_its_reason(market: Market) -> None:
    """It leaves the list, the metric and the finding, and can't be requeued by mistake."""
    number, second = parked(market, 1), parked(market, 2)
    assert run("discard", number).exit_code == 2, "why must be said"
    assert run("discard", number, "--reason", " ").exit_code == 2
    done = run("discard", number, 99_999, "--reason", "settled by phone")
    assert (done.exit_code, f"{number}  npb.file is discarded." in done.output, "no dead job 99999" in done.output) == (
        1,
        True,
        True,
    )
    with market.simulation.database.transaction() as conn:
        assert [waiting.dead_job_id for waiting in dead_jobs.list_waiting_jobs(conn)] == [second]
    discarded = json.loads(run("dead", "--discarded", "--json").output)
    assert (discarded["id"], discarded["discard_reason"]) == (number, "settled by phone")
    assert "was discarded: settled by phone" in replay(number).output
    assert "was discarded already" in run("discard", number, "--reason", "again").output
    assert replay("--all").exit_code == 0
    assert "was requeued already" in run("discard", second, "--reason", "too late").output


def run(*words: object) -> Result:
    """`./run jobs …`."""
    return CliRunner().invoke(jobs, [str(word) for word in words])


@pytest.mark.parametrize("complete", [True, False])
def test_dead_letter_is_requeued_once_as_its_command(market: Market, complete: bool) -> None:
    """As the queue had it, or its body alone, which is all that Celery shows of an unknown task."""
    raw = message([[], {"order_id": 1, "member_id": "seller"}, {}], headers={"id": "lost-1", "timelimit": "soon"})
    body = json.dumps(raw).encode() if complete else base64.b64decode(raw["body"])
    long = json.dumps([[], {"order_id": 1, "member_id": "seller", "comment": "x" * 5000}, {}]).encode()
    with market.simulation.database.transaction() as conn:
        for reason, raw_body in (("TASK_UNKNOWN", body), ("NOT_JSON", b"hello"), ("TASK_UNKNOWN", long)):
            letter = pending_letter(Rejected(reason, "", "npb.file", "lost-1"), "commands", raw_body)
            dead_letters.insert_dead_letter(conn, letter, market.simulation.clock.instant)
        cut, broken, good = (row.dead_letter_id for row in dead_letters.list_newest_dead_letters(conn, limit=3))
    done = run("dead-letters", "requeue", good, broken, cut, good)
    assert done.exit_code == 1
    assert f"{good}  npb.file is submitted." in done.output
    assert f"Dead letter {broken} is no command." in done.output
    assert f"Dead letter {cut} was too long" in done.output
    assert f"Dead letter {good} was requeued already." in done.output
    drained(market)
    answer = market.command_answer("lost-1")
    assert (answer.outcome, market.count(SubmissionRow)) == ("done", 1)
    listed = [json.loads(line) for line in run("dead-letters", "--json").output.splitlines()]
    assert [retried["id"] for retried in listed if "requeued_at" in retried] == [good]


@pytest.mark.usefixtures("environment")
@pytest.mark.long
def test_ten_thousand_misrouted_messages_are_moved_although_processes_are_killed(broker_url: str) -> None:
    """In order and without duplicates; messages that are no commands stay."""
    envelope = message([[], {"order_id": 1, "member_id": "seller"}, {}])
    misrouted = []
    for number in range(10_000):
        envelope["headers"]["id"] = f"stray-{number}"
        misrouted.append(json.dumps(envelope))
    foreign = [json.dumps(message(headers={"task": task})) for task in ("other.app", "outbox.relay")]
    with contextlib.closing(redis.Redis.from_url(broker_url)) as broker:
        broker.delete("celery", "commands")
        for start in range(0, 10_000, 1000):
            broker.lpush("celery", *foreign, *misrouted[start : start + 1000])
        broker.lpush("commands\x06\x163", misrouted[0].replace("stray-0", "urgent"))
        words = [sys.executable, "-m", "workers", "jobs", "dead-letters", "requeue"]
        for _ in range(2):
            before = broker.llen("commands")
            going = subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait_until(lambda before=before: broker.llen("commands") > before + 500)  # type: ignore[misc]
            going.kill()
            going.communicate()
            assert broker.llen("commands") < 10_000
            assert broker.llen("commands") + broker.llen("celery") == 10_020
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        assert "20 are not commands and stay" in done.stdout
        assert re.search(r"^\d+000 of \d+$", done.stderr, re.MULTILINE)
        moved = [json.loads(raw)["headers"]["id"] for raw in broker.lrange("commands", 0, -1)]
        assert moved[::-1] == [*(f"stray-{number}" for number in range(10_000)), "urgent"]
        assert broker.lrange("celery", 0, -1) == [raw.encode() for raw in foreign[::-1] * 10]
        broker.delete("celery", "commands")
