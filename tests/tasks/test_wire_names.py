"""The names of tasks on the wire are frozen: names may be added, never renamed or removed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schedules.routes import QUEUES, outbox_consumers, queue_of
from schedules.timetable import TIMETABLE
from workers.app import app
from workers.task import command_model

PUBLIC = [
    "members.record",
    "members.terminate",
    "members.reinstate",
    "inventory.record_lot",
    "orders.submit",
    "orders.add_batch",
    "orders.set_status",
    "orders.record_payment",
    "orders.settle_late_payment",
    "removals.request",
    "removals.approve",
    "removals.deny",
    "removals.withdraw",
    "bills.record_payment",
    "credits.post_manual",
    "terms.apply",
    "orders.options",
    "ocr.file",
    "ocr.decline",
    "ocr.withdraw",
    "npb.file",
    "npb.respond",
    "npb.accept_penalty",
    "npb.take_back",
    "npb.remove",
    "nrs.file",
    "nrs.respond",
    "nrs.remove",
    "nss.file",
    "nss.respond",
    "nss.remove",
    "orders.cancel",
    "orders.cancel_many",
    "drafts.open",
    "drafts.edit",
    "drafts.verify",
]
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
    "outbox.relay",
    "submissions.drain",
    "audit.check_invariants",
    "audit.check_everything",
]
HEARTBEATS = ["canary.commands", "canary.submissions", "canary.consequences", "canary.notices", "canary.sweeps"]
CHECKOUT = Path(__file__).resolve().parents[2]


def registered() -> set[str]:
    return {name for name in app.tasks if not name.startswith("celery.")}


@pytest.mark.parametrize("name", [*PUBLIC, *INTERNAL, *HEARTBEATS])
def test_every_name_of_the_contract_is_a_task(name: str) -> None:
    assert name in registered()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_tasks_are_validated_and_use_the_commands_queue(name: str) -> None:
    model = command_model(app.tasks[name])
    assert model is not None
    assert model.task == name
    assert queue_of(name) == "commands"


@pytest.mark.parametrize("name", INTERNAL)
def test_internal_tasks_take_no_command(name: str) -> None:
    assert command_model(app.tasks[name]) is None
    assert queue_of(name) in QUEUES
    assert queue_of(name) != "commands"


@pytest.mark.parametrize("name", HEARTBEATS)
def test_a_heartbeat_uses_the_queue_it_is_named_after(name: str) -> None:
    assert command_model(app.tasks[name]) is None
    assert name == f"canary.{queue_of(name)}"
    assert len(HEARTBEATS) == len(QUEUES)


def test_every_outbox_message_has_a_registered_consumer() -> None:
    named = re.compile(r'(?:Promise\(\s*(?:task=)?|\btask=|CANCEL_PENDING = |TASK = |then ")"([a-z_]+\.[a-z_]+)"')
    message_tasks = {
        name
        for floor in ("policies", "models", "tasks")
        for path in (CHECKOUT / floor).rglob("*.py")
        for name in named.findall(path.read_text())
    }
    assert message_tasks
    assert message_tasks | set(outbox_consumers()) <= registered()


def test_every_task_of_the_timetable_is_registered() -> None:
    assert {entry.task for entry in TIMETABLE} <= registered()
