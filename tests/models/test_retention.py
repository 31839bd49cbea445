"""Tests of pruning: which answers are deleted, which stay, and which roles may delete them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models import retention
from models.db import database as db
from models.dead_letters import DeadLetterRow
from models.events import EventRow
from models.outbox import OutboxRow
from models.stored_answers import RequestRow
from models.submissions import SubmissionRow
from tests.plugins.market import FILED, ORDERED, Market
from workers.cli.prune import prune as prune_command

LATER = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def old_market(market: Market) -> Market:
    """Orders and an alert of March, one order of today."""
    for n in range(5):
        market.order(2000 + n)
    market.at(FILED).done("npb.file", order_id=2000, member_id="seller", request_id="old")
    with market.simulation.database.transaction() as conn:
        market.simulation.clock.instant = db.DatabaseClock().now(conn)
    market.order(3000, buyer_id="stranger", request_id="new")
    return market


def counts(market: Market) -> dict[str, int]:
    return {
        "answers": market.count(RequestRow),
        "done": market.count(OutboxRow, state="done"),
        "due": market.count(OutboxRow, state="due"),
        "events": market.count(EventRow),
    }


@pytest.fixture
def owner(database_url: str) -> Any:
    database = db.connect(database_url, as_app=False)
    yield database
    database.dispose()


def test_old_answers_are_pruned_in_batches(old_market: Market, owner: db.Database) -> None:
    before = counts(old_market)
    rounds: list[int] = []
    while not rounds or rounds[-1]:
        with owner.transaction() as conn:
            rounds.append(retention.prune(conn, LATER, batch=3))
    after = counts(old_market)
    assert sum(rounds) == (before["answers"] - after["answers"]) + (before["done"] - after["done"])
    assert all(gone <= 9 for gone in rounds)
    assert len(rounds) > 3
    assert after["done"] == 0
    assert (after["due"], after["events"]) == (before["due"], before["events"])
    left = old_market.stored(RequestRow)
    assert "new" in {row.request_id for row in left}
    assert all(row.answered_at >= LATER for row in left)


def test_answer_younger_than_thirty_days_cannot_be_deleted(old_market: Market, owner: db.Database) -> None:
    with owner.transaction() as conn:
        now = db.DatabaseClock().now(conn)
    for instant in (now - timedelta(days=29), now, now + timedelta(days=1), None):
        with pytest.raises(DBAPIError, match="at least 30 days"), owner.transaction() as conn:
            retention.prune(conn, instant)  # type: ignore[arg-type]


def test_application_can_neither_prune_nor_delete(old_market: Market) -> None:
    for statement in (f"SELECT unwind.prune_requests('{ORDERED}', 10)", "DELETE FROM unwind.requests"):
        with (
            pytest.raises(DBAPIError, match="permission denied"),
            old_market.simulation.database.transaction() as conn,
        ):
            conn.execute(text(statement))


@pytest.mark.breaks_invariants("inserts a dead submission without a dead job")
def test_submissions_and_dead_letters_are_pruned_with_their_answers(old_market: Market, owner: db.Database) -> None:
    """Waiting and dead submissions stay."""
    with owner.transaction() as conn:
        for n, (state, answered) in enumerate(
            (("answered", ORDERED), ("answered", None), ("waiting", None), ("dead", None))
        ):
            conn.execute(
                text(
                    "INSERT INTO unwind.submissions (request_id, task, payload, submitted_by, submitted_at, "
                    "state, due_at, "
                    "answered_at) VALUES (:id, 'npb.file', '{}', 'x', :at, :state, :at, :answered)"
                ),
                {"id": f"s{n}", "at": ORDERED, "state": state, "answered": answered or LATER + timedelta(days=1)},
            )
        conn.execute(
            text(
                "INSERT INTO unwind.dead_letters (reason, body_bytes, body, received_at) "
                "VALUES ('TASK_UNKNOWN', 0, '', :at)"
            ),
            {"at": ORDERED},
        )
    with owner.transaction() as conn:
        assert retention.prune(conn, LATER) > 0
    assert sorted(submission.request_id for submission in old_market.stored(SubmissionRow)) == [
        "s1",
        "s2",
        "s3",
    ]
    assert old_market.count(DeadLetterRow) == 0


def test_prune_command_works_as_the_owner(
    old_market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    first = CliRunner().invoke(prune_command, [])
    assert first.exit_code == 0, first.output
    assert int(first.output.split()[0]) > 5
    assert CliRunner().invoke(prune_command, []).output == "0 rows deleted.\n"
    assert CliRunner().invoke(prune_command, ["--older-than", "29"]).exit_code == 2
