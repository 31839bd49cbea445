"""Tests that every message is validated and valid messages pass."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.dead_letters import DEAD_LETTER_ROW_REASONS
from schedules.routes import HEARTBEAT, QUEUES, queue_of
from schedules.timetable import TIMETABLE
from tests.workers.transport.hostile_messages import ARGUMENTS, EXPECTED, Hostile, encoded, message
from workers.app import app
from workers.transport.postponed import delayed_without_eta
from workers.transport.validation import MAX_MESSAGE_BYTES, Rejected, ValidButDelayed, validate_message

NOW = datetime.now(UTC)  # noqa: TID251 - as the transport compares what producers' clocks wrote


def validated(raw: bytes, queue: str = "commands") -> dict[str, Any]:
    return validate_message(raw, queue, app.tasks, "a-tag", NOW)


def refused(raw: bytes, queue: str = "commands") -> Rejected:
    with pytest.raises(Rejected) as caught:
        validated(raw, queue)
    return caught.value


@pytest.mark.parametrize("hostile", EXPECTED, ids=lambda message: message.name)
def test_hostile_message_is_rejected_with_its_reason_or_passed_to_the_task(hostile: Hostile) -> None:
    if hostile.reason in (None, "TASK_UNKNOWN"):
        assert validated(hostile.raw)["properties"]["delivery_tag"] == "a-tag"
    else:
        rejection = refused(hostile.raw)
        assert (rejection.reason, rejection.reason in DEAD_LETTER_ROW_REASONS) == (hostile.reason, True)
        assert rejection.detail
        assert len(rejection.detail) < 120


def test_rejection_contains_no_value_of_the_message() -> None:
    """P9."""
    for hostile in EXPECTED:
        if hostile.reason not in (None, "TASK_UNKNOWN"):
            detail = refused(hostile.raw).detail
            assert "npb" not in detail
            assert "nobody" not in detail


@pytest.mark.parametrize("queue", QUEUES)
def test_each_queue_has_its_own_size_limit(queue: str) -> None:
    """16 MB for commands, 64 KB for internal messages, inclusive."""
    task = "queues.heartbeat"
    limit = MAX_MESSAGE_BYTES.get(queue, 64 * 1024)
    bare = len(json.dumps(message(headers={"task": task, "id": "a"}, padding="")).encode())
    fitting = json.dumps(message(headers={"task": task, "id": "a"}, padding="x" * (limit - bare))).encode()
    assert len(fitting) == limit
    assert validated(fitting, queue)["headers"]["task"] == task
    assert refused(fitting + b" ", queue).reason == "TOO_LARGE"


def test_task_is_accepted_only_through_its_queue() -> None:
    """A right to push to one queue gives access to no task of another."""
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    assert len(names) > 40
    for name in names:
        raw = json.dumps(message(headers={"task": name})).encode()
        for queue in QUEUES:
            if queue == queue_of(name) or name == HEARTBEAT:
                validated(raw, queue)
            else:
                assert refused(raw, queue).reason == "WRONG_QUEUE"


def _sent(name: str, queue: str, **options: Any) -> bytes:
    """A message of our own application, as the queue has it."""
    headers, properties, body, _ = app.amqp.as_task_v2(
        "an-id", name, args=(), kwargs=options.pop("kwargs", {}), **options
    )
    envelope = message(body, headers=headers, properties=properties)
    envelope["body"] = encoded(body)
    return json.dumps(envelope).encode()


@pytest.mark.parametrize("header", ["stamps", "stamped_headers", "replaced_task_nesting", "retries"])
@pytest.mark.parametrize("empty", [None, [], {}, "", 0, False])
def test_clients_may_write_as_they_like_that_there_are_none(header: str, empty: Any) -> None:
    """PHP writes an empty map as a list, and Lua an empty list as a map."""
    headers = validated(json.dumps(message(headers={"id": "an-id", header: empty})).encode())["headers"]
    assert headers == validated(json.dumps(message(headers={"id": "an-id"})).encode())["headers"]


def test_ticks_and_outbox_messages_are_accepted_and_may_expire() -> None:
    """Celery drops an expired tick; the next one does its work."""
    late = NOW - timedelta(hours=1)
    for entry in TIMETABLE:
        assert validated(_sent(entry.name, entry.queue, expires=late), entry.queue)["headers"]["expires"]
    rows = list(range(10**11, 10**11 + 500))
    published = _sent("notices.tell_seller", "notices", kwargs={"rows": rows}, expires=600)
    assert validated(published, "notices")["headers"]["task"] == "notices.tell_seller"


@pytest.mark.parametrize("ahead", [timedelta(minutes=-31), timedelta(0), timedelta(seconds=30), timedelta(minutes=31)])
def test_retry_waits_at_most_half_a_minute(ahead: timedelta) -> None:
    """Even on a worker whose clock is half an hour off."""
    raw = _sent("npb.file", "commands", eta=NOW + ahead, retries=3)
    headers = validated(raw)["headers"]
    assert headers["retries"] == 3
    assert datetime.fromisoformat(headers["eta"]) <= NOW + timedelta(seconds=30)


@pytest.mark.parametrize(("ahead", "waits"), [(1, 1), (60, 60), (64, 60), (66, None), (3600, None)])
def test_command_can_be_delayed_by_a_minute_and_waits_once(ahead: int, waits: int | None) -> None:
    """By `countdown` and `eta`, regardless of the worker's clock; a copy is another message."""
    raw = _sent("npb.file", "commands", eta=NOW + timedelta(seconds=ahead))
    if waits is None:
        assert refused(raw).detail == "headers.eta is more than a minute away: send it when it is wanted"
        return
    with pytest.raises(ValidButDelayed) as caught:
        validated(raw)
    assert caught.value.seconds == waits
    at_once = delayed_without_eta(raw, "tag")
    assert validated(at_once)["headers"] == validated(_sent("npb.file", "commands"))["headers"]
    assert delayed_without_eta(raw, "another-tag") != at_once


def test_past_eta_means_now() -> None:
    assert validated(_sent("npb.file", "commands", eta=NOW - timedelta(hours=1)))["headers"]["eta"] is None


@pytest.mark.parametrize(
    ("headers", "awaited"),
    [({}, True), ({"ignore_result": True}, False), ({"id": ["x"]}, False), ({"id": "with blank"}, False)],
)
def test_rejection_says_whether_a_caller_may_wait(headers: dict[str, Any], awaited: bool) -> None:
    rejection = refused(json.dumps(message(headers={"timelimit": "soon"} | headers)).encode())
    assert rejection.is_awaited is awaited


def test_requeued_message_is_accepted_again() -> None:
    """kombu marks it as redelivered."""
    before = validated(json.dumps(message(headers={"traceparent": "00-a-b-01"})).encode())
    before["headers"]["redelivered"] = True
    before["properties"]["delivery_info"]["redelivered"] = True
    again = validated(json.dumps(before).encode())
    assert again["headers"] == before["headers"]
    assert again["headers"]["traceparent"] == "00-a-b-01"
    assert again["body"] == before["body"]


def test_expired_command_is_rejected() -> None:
    """By the producer's `expires`."""
    soon = json.dumps(message(headers={"expires": (NOW + timedelta(seconds=9)).isoformat()})).encode()
    assert validated(soon)["headers"]["expires"]
    naive = json.dumps(message(headers={"expires": (NOW - timedelta(1)).replace(tzinfo=None).isoformat()})).encode()
    assert refused(naive).reason == "EXPIRED"


# -- random messages ---------------------------------------------------------------------------------------------------

_WORDS = (
    "task",
    "id",
    "retries",
    "eta",
    "expires",
    "timelimit",
    "callbacks",
    "stamps",
    "group",
    "__type__",
    "__value__",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=5), inner),
    max_leaves=12,
)


@st.composite
def mutated_messages(draw: st.DrawFn) -> bytes:
    """A valid message with replaced fields or bytes."""
    envelope = message(draw(st.one_of(st.just(ARGUMENTS), st.binary(max_size=50), _JSON)) or ARGUMENTS)
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from(("headers", "properties", "")))
        target = envelope if part == "" else envelope[part]
        if isinstance(target, dict):
            names = st.sampled_from(sorted(target)) | st.text(max_size=8) if target else st.text(max_size=8)
            target[draw(names)] = draw(_JSON)
    raw = bytearray(json.dumps(envelope).encode())
    for _ in range(draw(st.integers(0, 2))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


def _is_handled(raw: bytes) -> None:
    rejection, reason = _validated_or_reason(raw)
    if rejection is None:
        assert reason in DEAD_LETTER_ROW_REASONS
        return
    body = json.loads(
        base64.b64decode(rejection["body"]) if rejection["properties"]["body_encoding"] else rejection["body"]
    )
    assert isinstance(body, list)
    assert rejection["headers"]["timelimit"] == [None, None]
    assert rejection["properties"]["delivery_info"] == {"exchange": "", "routing_key": "commands"}
    assert not any((body[2] or {}).values())


def _validated_or_reason(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    try:
        return validated(raw), ""
    except Rejected as rejection:
        return None, rejection.reason


@settings(max_examples=150, deadline=None)
@given(mutated_messages() | st.binary(max_size=200))
def test_any_message_is_accepted_or_rejected(raw: bytes) -> None:
    """Without any other error; accepted messages use no features of Celery's canvas."""
    _is_handled(raw)


@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_messages() | st.binary(max_size=200))
def test_two_thousand_messages_are_accepted_or_rejected(raw: bytes) -> None:
    _is_handled(raw)
