"""Are the names that others send still the ones we know?  Frozen: adding is fine, renaming or dropping is not (contract)."""

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
OF_THE_HOUSE = [
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
CANARIES = ["canary.commands", "canary.submissions", "canary.consequences", "canary.notices", "canary.sweeps"]
CHECKOUT = Path(__file__).resolve().parents[2]


def registered() -> set[str]:
    """The tasks a worker knows, without Celery's own."""
    return {name for name in app.tasks if not name.startswith("celery.")}


@pytest.mark.parametrize("name", [*PUBLIC, *OF_THE_HOUSE, *CANARIES])
def test_every_name_of_the_contract_is_a_task(name: str) -> None:
    """Contract 2.2 to 2.4."""
    assert name in registered()


@pytest.mark.parametrize("name", PUBLIC)
def test_what_others_send_is_validated_and_goes_through_the_queue_of_commands(name: str) -> None:
    """Contract 2: keyword arguments into a command, queue `commands`."""
    model = command_model(app.tasks[name])
    assert model is not None
    assert model.task == name
    assert queue_of(name) == "commands"


@pytest.mark.parametrize("name", OF_THE_HOUSE)
def test_what_the_house_does_takes_no_command(name: str) -> None:
    """Contract 2.4: callable by hand, safe to repeat, in its own queue."""
    assert command_model(app.tasks[name]) is None
    assert queue_of(name) in QUEUES
    assert queue_of(name) != "commands"


@pytest.mark.parametrize("name", CANARIES)
def test_a_canary_flies_through_the_queue_it_is_named_after(name: str) -> None:
    """X9: and there is one for every queue."""
    assert command_model(app.tasks[name]) is None
    assert name == f"canary.{queue_of(name)}"
    assert len(CANARIES) == len(QUEUES)


def test_whatever_is_promised_has_a_follower() -> None:
    """House: every name told is a registered task, else its promise would be rung for ever."""
    named = re.compile(r'(?:Promise\(\s*(?:task=)?|\btask=|CANCEL_PENDING = |TASK = |then ")"([a-z_]+\.[a-z_]+)"')
    told = {
        name
        for floor in ("policies", "models", "tasks")
        for path in (CHECKOUT / floor).rglob("*.py")
        for name in named.findall(path.read_text())
    }
    assert told
    assert told | set(outbox_consumers()) <= registered()


def test_whatever_is_on_the_timetable_is_a_task() -> None:
    """A tick for a name that nobody knows would be dropped in silence (F31)."""
    assert {entry.task for entry in TIMETABLE} <= registered()
