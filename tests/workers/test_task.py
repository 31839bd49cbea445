"""Tests of the base task: retries, bisection and error summaries."""

from __future__ import annotations

import traceback
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models import dead_jobs, outbox
from models.db.database import is_database_unavailable
from models.outbox import OutboxRow
from policies.verdicts import OutboxMessage
from tests.plugins.stored_rows import load_column, load_rows
from workers import task
from workers.app import app
from workers.errors import SanitizedError, summarize_error
from workers.simulation.engine import Simulation

TASK = "removals.cancel_pending"


class FailingConsumer:
    """Handles all outbox messages except those in `bad`."""

    def __init__(self, simulation: Simulation, bad: set[int]) -> None:
        self.simulation, self.bad = simulation, bad

    def run(self, rows: list[int]) -> dict[str, Any]:
        with self.simulation.database.transaction() as conn:
            due = outbox.claim_messages(conn, TASK, rows=rows)
            if self.bad & {row.outbox_id for row in due}:
                raise KeyError("private words")
            outbox.mark_messages_done(conn, due, self.simulation.clock.instant)
        return {}


def insert_outbox_rows(simulation: Simulation, count: int) -> list[int]:
    with simulation.database.transaction() as conn:
        outbox.enqueue_messages(
            conn, [OutboxMessage(TASK, f"test:{n}", None) for n in range(count)], simulation.clock.instant
        )
        return load_column(conn, OutboxRow.outbox_id)


def states(simulation: Simulation) -> dict[int, str]:
    """The state of each outbox message."""
    with simulation.database.transaction() as conn:
        return {row.outbox_id: row.state for row in load_rows(conn, OutboxRow)}


@pytest.mark.guarantee("P8")
def test_failing_outbox_row_stops_no_other(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: the batch is halved until the failing row is alone."""
    rows = insert_outbox_rows(simulation, 9)
    monkeypatch.setattr(app.tasks[TASK], "run", FailingConsumer(simulation, {rows[4]}).run)
    app.tasks[TASK].bisect_failure(rows, KeyError("private words"))
    assert states(simulation) == {row: "due" if row == rows[4] else "done" for row in rows}


@pytest.mark.guarantee("P8")
def test_failing_row_of_a_wakeup_stops_no_other(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: a wake-up names no rows, so they are read again."""
    rows = insert_outbox_rows(simulation, 9)
    monkeypatch.setattr(app.tasks[TASK], "run", FailingConsumer(simulation, {rows[4]}).run)
    app.tasks[TASK].apply(kwargs={"rows": []})
    assert states(simulation) == {row: "due" if row == rows[4] else "done" for row in rows}
    app.tasks[TASK].apply(kwargs={"rows": []})
    with simulation.database.transaction() as conn:
        assert load_column(conn, OutboxRow.attempts, state="due") == [1]


def test_outbox_row_that_keeps_failing_is_parked_and_can_be_requeued(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts appear nowhere."""
    (row,) = insert_outbox_rows(simulation, 1)
    monkeypatch.setattr(app.tasks[TASK], "run", FailingConsumer(simulation, {row}).run)
    for _ in range(outbox.MAX_ATTEMPTS):
        app.tasks[TASK].bisect_failure([row], KeyError("private words"))
    assert states(simulation) == {row: "dead"}
    with simulation.database.transaction() as conn:
        (job,) = dead_jobs.list_waiting_jobs(conn)
        assert (job.task, job.arguments, job.outbox_id) == (TASK, {"rows": [row]}, row)
        assert "private" not in job.error
        outbox.requeue_messages(conn, [row], simulation.clock.instant)
        assert dead_jobs.mark_job_replayed(conn, job.dead_job_id, simulation.clock.instant)
    FailingConsumer(simulation, set()).run([row])
    assert states(simulation) == {row: "done"}


def test_summary_of_a_database_error_has_the_constraint_and_no_values(simulation: Simulation) -> None:
    """P9: PostgreSQL's message contains the whole row."""
    with pytest.raises(DBAPIError) as caught, simulation.database.transaction() as conn:
        conn.execute(text("INSERT INTO unwind.members (member_id, handle) VALUES ('private', 'words')"))
    assert "IntegrityError 23502" in summarize_error(caught.value)
    assert "private" not in summarize_error(caught.value)
    assert not is_database_unavailable(caught.value)


@pytest.mark.parametrize("state", ["53100", "53200", "57P03", "58030"])
def test_server_without_resources_counts_as_unavailable(simulation: Simulation, state: str) -> None:
    """A full disk, no memory or a restart ends without our help, so no attempt counts."""
    want = text(f"DO $$ BEGIN RAISE EXCEPTION 'in want' USING ERRCODE = '{state}'; END $$")
    with pytest.raises(DBAPIError) as caught, simulation.database.transaction() as conn:
        conn.execute(want)
    assert is_database_unavailable(caught.value)


def test_closed_connection_counts_as_unavailable_and_a_statement_timeout_does_not(
    simulation: Simulation, admin: psycopg.Connection
) -> None:
    """A statement that is too slow would be too slow again."""
    with pytest.raises(DBAPIError) as cut, simulation.database.transaction() as conn:  # noqa: PT012 - the second statement is it
        _end(admin, conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
        conn.execute(text("SELECT 1"))
    assert is_database_unavailable(cut.value)
    with pytest.raises(DBAPIError) as slow, simulation.database.transaction() as conn:  # noqa: PT012 - the same
        conn.execute(text("SELECT set_config('statement_timeout', '20ms', true)"))
        conn.execute(text("SELECT pg_sleep(5)"))
    assert not is_database_unavailable(slow.value)


def _end(admin: psycopg.Connection, pid: int) -> None:
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


@pytest.mark.parametrize(
    "arguments", [{"rows": "all"}, {"rows": [1.5]}, {"rows": [True]}, {"order_id": "1"}, {"nonsense": 1}]
)
def test_internal_task_answers_invalid_to_bad_arguments(simulation: Simulation, arguments: dict[str, Any]) -> None:
    """Operators may call it by hand."""
    answer = app.tasks[TASK].validate_and_run(arguments, "by-hand")
    assert (answer["outcome"], [e["path"] for e in answer["errors"]]) == ("invalid", list(arguments))


def test_error_raised_to_celery_has_no_values() -> None:
    """Logs, events and the result backend contain the kind and the place only."""
    try:
        raise KeyError("private words")
    except KeyError as error:
        failure = SanitizedError(summarize_error(error))
    assert "KeyError at tests/workers/test_task.py" in str(failure)
    assert "private" not in str(failure)


def test_error_raised_to_celery_has_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's events contain the traceback of every retry."""

    words = " ".join(["is"] * 3)  # made here: a traceback quotes source lines

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError(words)

    monkeypatch.setattr(task.BaseTask, "validate_and_run", fails)
    with pytest.raises(SanitizedError) as caught:
        app.tasks["ocr.file"](order_id=1)
    assert words not in "".join(traceback.format_exception(caught.value))
