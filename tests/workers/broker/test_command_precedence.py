"""Tests that emails, and nothing else, wait for queued commands, and for a bounded time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import redis

from models import outbox
from models.db import database as db
from policies.credits import CREDIT_TASK
from policies.verdicts import OutboxMessage
from workers import lifecycle
from workers.app import app
from workers.broker import command_precedence
from workers.broker.command_precedence import FEW_CREDITS, PRECEDING_QUEUES, QUEUES_THAT_MAY_WAIT, YIELDING_TASKS
from workers.broker.wakeups import Wakeups
from workers.local.process_specs import WORKER_GROUPS
from workers.simulation.engine import Simulation


class QueuedCommand:
    """A message in one of the queues, which a worker takes at the third pause of the waiting task."""

    def __init__(self, broker: redis.Redis, queue: str) -> None:
        self.broker, self.queue, self.pauses = broker, queue, 0
        broker.lpush(queue, "a command")

    def pause(self, _seconds: float) -> None:
        self.pauses += 1
        if self.pauses == 3:
            self.broker.delete(self.queue)

    @property
    def waits(self) -> bool:
        return bool(self.broker.exists(self.queue))


@pytest.fixture(autouse=True)
def worker_of_emails(monkeypatch: pytest.MonkeyPatch) -> None:
    consume(monkeypatch, WORKER_GROUPS["emails"])


def consume(monkeypatch: pytest.MonkeyPatch, queues: Iterable[str]) -> None:
    """Let this process be of a worker with these queues."""
    monkeypatch.setattr(app.amqp.queues, "_consume_from", {name: app.amqp.queues[name] for name in queues})


@pytest.fixture(params=PRECEDING_QUEUES)
def command(
    environment: Simulation, broker_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[QueuedCommand]:
    wakeups = Wakeups(app, broker_url)
    monkeypatch.setattr(lifecycle, "_process_wakeups", wakeups)
    with redis.Redis.from_url(broker_url) as client:
        queued = QueuedCommand(client, str(request.param))
        monkeypatch.setattr(command_precedence, "sleep", queued.pause)
        yield queued
    wakeups.close()


@pytest.mark.parametrize("task", sorted(YIELDING_TASKS))
def test_emails_wait_until_no_command_is_queued(command: QueuedCommand, task: str) -> None:
    """B17: else a burst shares its processors with the emails of its own first orders."""
    app.tasks[task].apply().get()
    assert not command.waits


@pytest.mark.parametrize("count", [FEW_CREDITS, FEW_CREDITS + 1])
def test_emails_wait_while_many_credits_are_posted(
    environment: Simulation, broker_url: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The message that announces them is taken at once; a few, as of single cancellations, delay no email."""
    pauses = []

    def post(_seconds: float) -> None:
        pauses.append(_seconds)
        with db.current_database().transaction() as conn:
            outbox.mark_messages_done(conn, outbox.claim_messages(conn, CREDIT_TASK), environment.clock.instant)

    monkeypatch.setattr(command_precedence, "sleep", post)
    with db.current_database().transaction() as conn:
        messages = [OutboxMessage(CREDIT_TASK, f"fee:{n}", n) for n in range(1, count + 1)]
        outbox.enqueue_messages(conn, messages, environment.clock.instant)
    wakeups = Wakeups(app, broker_url)
    monkeypatch.setattr(lifecycle, "_process_wakeups", wakeups)
    app.tasks["notices.deliver"].apply().get()
    wakeups.close()
    assert bool(pauses) == (count > FEW_CREDITS)


def test_a_worker_that_reads_other_queues_too_does_not_wait(
    command: QueuedCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its emails kept its processes from the very queues that they waited for, so these were never empty."""
    assert {name for name, queues in WORKER_GROUPS.items() if QUEUES_THAT_MAY_WAIT.issuperset(queues)} == {"emails"}
    consume(monkeypatch, ("commands", *WORKER_GROUPS["emails"]))
    app.tasks["notices.deliver"].apply().get()
    assert (command.waits, command.pauses) == (True, 0)


def test_nothing_else_waits(command: QueuedCommand) -> None:
    app.tasks["npb.scan_open_alerts"].apply().get()
    assert (command.waits, command.pauses) == (True, 0)


def test_emails_go_on_although_commands_are_always_queued(
    command: QueuedCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R102."""
    monkeypatch.setattr(command_precedence, "MAX_WAIT_SECONDS", 0.0)
    app.tasks["notices.deliver"].apply().get()
    assert command.waits
    command.broker.delete(command.queue)
    app.tasks["notices.deliver"].apply().get()
    assert command.pauses == 0, "without commands they do not wait"
