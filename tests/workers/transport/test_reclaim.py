"""Tests of the decision that a consumer is dead."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from workers.transport.reclaim import HEARTBEAT_PREFIX, PROCESSING_LISTS_KEY, ConsumerId


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def ended_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def leave_message(broker: redis.Redis, space: str, pid: int) -> str:
    """Leaves one message in the processing list of a consumer whose last heartbeat is fresh."""
    name = f"{space}/{pid}/0123abcd"
    broker.set(HEARTBEAT_PREFIX + name, 1, ex=30)
    broker.hset(PROCESSING_LISTS_KEY, f"list of {name}", f"{name} commands")
    broker.lpush(f"list of {name}", "a message")
    return name


def reclaim(broker: redis.Redis, consumer: ConsumerId) -> int:
    consumer.heartbeat_and_reclaim(broker, "index", {}, lambda _tag: False, lambda _tag: None)
    return int(broker.llen("commands"))


def test_messages_of_an_ended_process_are_back_at_once(broker: redis.Redis, ended_pid: int) -> None:
    leave_message(broker, ConsumerId.own_space(), ended_pid)
    assert reclaim(broker, ConsumerId()) == 1


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_process_id_of_another_space_means_nothing(broker: redis.Redis, ended_pid: int, changed: int) -> None:
    """Another host; the same after a restart; a container with the host's network and a PID namespace of its own."""
    parts = ConsumerId.own_space().rsplit(".", 2)
    parts[changed] += "0"
    name = leave_message(broker, ".".join(parts), ended_pid)
    assert reclaim(broker, ConsumerId()) == 0
    broker.delete(HEARTBEAT_PREFIX + name)
    assert reclaim(broker, ConsumerId()) == 1, "its heartbeat expired"


def test_a_space_is_named_by_boot_and_namespace() -> None:
    _, boot, namespace = ConsumerId.own_space().rsplit(".", 2)
    assert boot.count("-") == 4
    assert str(Path("/proc/self/ns/pid").readlink()) == f"pid:[{namespace}]"
