"""The names of tasks on the wire are frozen: names may be added, never renamed or removed.

Those of commands are kept by `contract/`, from which none may go (tests/tools/test_contract_files.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.outbox import OUTBOX_CONSUMERS
from schedules.routes import HEARTBEAT, QUEUES, queue_of
from tasks.declarations import COMMANDS
from workers.app import APP_BEAT_ENTRIES, app

INTERNAL = [
    "npb.scan_open_alerts",
    "alerts.scan_seller_alerts",
    "notices.tell_seller",
    "notices.tell_buyer",
    "notices.deliver",
    "removals.cancel_pending",
    "credits.post_to_next_invoice",
    "bills.issue",
    "reminders.scan",
    "automation.file_alerts",
    "automation.cancel",
    "automation.resolve_requests",
    "outbox.relay",
    "submissions.drain",
    "audit.check_invariants",
    "audit.check_everything",
    "webhooks.deliver",
]
CHECKOUT = Path(__file__).resolve().parents[2]


def registered() -> set[str]:
    return {name for name in app.tasks if not name.startswith(("celery.", "pytest_celery.", "test."))}


@pytest.mark.parametrize("name", [*INTERNAL, HEARTBEAT])
def test_every_name_of_the_contract_is_a_task(name: str) -> None:
    assert name in registered()


@pytest.mark.parametrize("name", COMMANDS)
def test_public_tasks_are_validated_and_use_the_commands_queue(name: str) -> None:
    assert app.tasks[name].command_model is COMMANDS[name].model
    assert COMMANDS[name].model.task == name
    assert queue_of(name) == "commands"


def test_every_other_task_is_internal() -> None:
    assert registered() == {*COMMANDS, *INTERNAL, HEARTBEAT}


@pytest.mark.parametrize("name", INTERNAL)
def test_internal_tasks_take_no_command(name: str) -> None:
    assert app.tasks[name].command_model is None
    assert queue_of(name) in QUEUES
    assert queue_of(name) != "commands"


def test_every_outbox_message_has_a_registered_consumer() -> None:
    pattern = re.compile(r'(?:OutboxMessage\(\s*(?:task=)?|\btask=|TASK = |then ")"([a-z_]+\.[a-z_]+)"')
    message_tasks = {
        name
        for floor in ("policies", "models", "tasks")
        for path in (CHECKOUT / floor).rglob("*.py")
        for name in pattern.findall(path.read_text())
    }
    assert message_tasks
    assert message_tasks | set(OUTBOX_CONSUMERS) <= registered()


def test_every_task_of_the_timetable_is_registered() -> None:
    assert {entry.name for entry in APP_BEAT_ENTRIES} <= registered()
