"""Tests of the Celery application: its settings, its import, and the redaction of messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten
from celery.utils.saferepr import saferepr

from models.stored_answers import Answer
from schedules.routes import QUEUES
from workers.app import VISIBILITY_TIMEOUT, app
from workers.redaction import redact_answer, redact_arguments, redact_arguments_for_search
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

CHECKOUT = Path(__file__).resolve().parents[2]


def test_importing_the_app_needs_no_environment_and_opens_no_connection() -> None:
    """Servers are located by the first process that connects."""
    script = (
        "import socket\n"
        "def refuse(*_): raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "from workers.app import app\n"
        "assert app.conf.broker_url is None and app.conf.result_backend is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_app_loads_no_library_that_only_some_processes_need() -> None:
    """The import time of `workers.app` (B15) counts in every start; these libraries alone are a sixth of it."""
    unneeded = [
        "alembic",
        "flower",
        "jinja2",
        "prometheus_client",
        "smtplib",
        "tornado.web",
    ]
    script = f"import workers.app, sys; sys.exit(' '.join(sys.modules.keys() & {unneeded}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env={}, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task_acks_late", True),
        ("task_retry_on_worker_lost", True),
        ("task_reject_on_worker_lost", False),
        ("task_track_started", False),
        ("task_soft_time_limit", None),
        ("task_create_missing_queues", False),
        ("task_serializer", "json"),
        ("result_serializer", "json"),
        ("accept_content", ("json",)),
        ("result_accept_content", None),  # what `accept_content` says
        ("event_serializer", "json"),
        ("task_ignore_result", False),
        ("result_backend_always_retry", True),
        ("result_extended", False),
        ("broker_channel_error_retry", True),
        ("broker_connection_max_retries", None),
        ("worker_prefetch_multiplier", 1),
        ("worker_hijack_root_logger", False),
        ("enable_utc", True),
        ("timezone", None),
    ],
)
def test_settings_have_their_documented_values(setting: str, value: Any) -> None:
    """The reasons and measurements are in workers/app.py."""
    assert app.conf[setting] == value
    assert str(app.timezone) == "UTC"


def test_celery_knows_every_setting() -> None:
    """Celery ignores a misspelled setting."""
    # The Redis backend reads it although Celery's table of settings lacks it.
    known = {name for name, _ in flatten(NAMESPACES)} | {"redis_backend_health_check_interval", "deprecated_settings"}
    assert set(app.conf.maps[0]) <= known


def test_hard_limit_is_less_than_half_the_visibility_timeout() -> None:
    assert HARD_TIME_LIMIT_SECONDS < VISIBILITY_TIMEOUT / 2
    assert app.conf.broker_transport_options["visibility_timeout"] == VISIBILITY_TIMEOUT


def test_app_declares_exactly_the_routed_queues() -> None:
    assert [queue.name for queue in app.conf.task_queues] == list(QUEUES)


def test_redacted_arguments_hold_only_ids_and_codes() -> None:
    """Flower and logs show them."""
    arguments = {
        "order_id": 1003,
        "member_id": "s-881",
        "reason": "B_OTHER",
        "comment": "private",
        "email": "a@b.example",
        "staff": "Anna",
        "request_id": "bad id\n",
        "rows": [1, 2, 3],
        "draft_id": {"a": 1},
    }
    assert redact_arguments(arguments) == "order_id=1003 member_id=s-881 reason=B_OTHER rows=3"
    assert redact_arguments(["x"]) == ""
    assert (
        redact_arguments_for_search(arguments | {"rows": 3})
        == "{'order_id': 1003, 'member_id': 's-881', 'reason': 'B_OTHER'}"
    )


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer("refused", "r", "Not before Monday.", "TOO_EARLY", 1003, "2026-04-18T10:00:00Z"), "refused TOO_EARLY"),
        (Answer("done", "r", "Done.", effects={"unlocked": 3}), "done unlocked=3"),
        (Answer("done", "r", "Done.", effects={"lots": [{"remarks": "private"}]}), "done"),
        (Answer("done", "r", "Done.", effects={"note": "private"}), "done"),
        (Answer("invalid", "r", "'effects': {'private': 5}", errors=[{"path": "a", "message": "b"}]), "invalid"),
    ],
)
def test_redacted_answer_holds_outcome_code_and_counts(answer: Answer, text: str) -> None:
    """A refusal is a SUCCESS in Flower, found by its code; texts may be private (P9)."""
    assert redact_answer(saferepr(answer.as_json(), 512)) == text


def test_redacted_answer_of_unknown_shape_is_empty() -> None:
    assert redact_answer("'private'") == ""


def test_sent_message_representation_has_no_comment() -> None:
    """Producers write it into a message's headers."""
    message = app.amqp.as_task_v2("id", "ocr.file", (), {"order_id": 1, "comment": "private"})
    assert "private" not in str(message.headers)
    assert message.headers["kwargsrepr"] == "{'order_id': 1}"
    assert message.body[1] == {"order_id": 1, "comment": "private"}
