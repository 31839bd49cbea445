"""Test of the RabbitMQ consumer in docs/integrate.md, on a server of its own where RabbitMQ is installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest

from models.submissions import SubmissionRow
from tests.plugins.servers import libpq_url
from tests.plugins.stored_rows import DatabaseRows
from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.settings import CHECKOUT

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
COMMANDS = 400
REPEATS = 20
BOOT_TIMEOUT = DRAIN_TIMEOUT = 90.0
LOGIN = "guest:guest"
POISON = {
    b"\xff no text": "MALFORMED",
    b"[]": "MALFORMED",
    b'{"task": "npb.file"}': "MALFORMED",
    b'{"task": "a\\u0000b", "arguments": {}, "request_id": "r-1"}': "MALFORMED",
    b'{"task": 7, "arguments": {}, "request_id": "r-2"}': "MALFORMED",
    b'{"task": {}, "arguments": {}, "request_id": "r-3"}': "MALFORMED",
    b'{"task": "\\ud800", "arguments": {}, "request_id": "r-6"}': "MALFORMED",
    b'{"task": "no.such", "arguments": {}, "request_id": "r-4"}': "TASK_UNKNOWN",
    b'{"task": "npb.file", "arguments": {}, "request_id": "not an id"}': "REQUEST_ID_INVALID",
    b'{"task": "npb.file", "arguments": [], "request_id": "r-5"}': "PAYLOAD_INVALID",
}


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[str]:
    """The address of a RabbitMQ whose every port and file is the test's own."""
    if not (PROGRAMS / "rabbitmq-server").exists():
        pytest.skip("not run: there is no rabbitmq-server on this machine (Debian: apt-get install rabbitmq-server)")
    port, distribution, names = (free_port() for _ in range(3))
    environment = os.environ | {
        "HOME": str(tmp_path),
        "RABBITMQ_NODENAME": f"unwind-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(tmp_path / "data"),
        "RABBITMQ_LOG_BASE": str(tmp_path / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(tmp_path / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(tmp_path / "none"),
    }
    with (tmp_path / "output").open("w") as output:
        server = subprocess.Popen(
            [PROGRAMS / "rabbitmq-server"], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        address = f"127.0.0.1:{port}"
        assert wait_until(lambda: _answers(address), BOOT_TIMEOUT), (tmp_path / "output").read_text()
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        # It refuses until it has noticed that its node is gone.
        end_names = ["/usr/bin/epmd", "-port", str(names), "-kill"]
        assert wait_until(lambda: b"Killed" in subprocess.run(end_names, capture_output=True, check=False).stdout, 30)


def _answers(address: str) -> bool:
    try:
        with amqp.Connection(address, *LOGIN.split(":")):
            return True
    except (OSError, amqp.AMQPError):
        return False


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(300)
def test_consumer_hands_over_every_command_once_through_a_kill(
    rabbitmq: str, database_url: str, database_rows: DatabaseRows, tmp_path: Path
) -> None:
    page = (CHECKOUT / "docs" / "integrate.md").read_text()
    code = re.findall(r"^```python rabbitmq\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    (program := tmp_path / "consumer.py").write_text(code)
    environment = os.environ | {
        "DATABASE_URL": libpq_url(database_url),
        "RABBITMQ_AT": rabbitmq,
        "RABBITMQ_LOGIN": LOGIN,
    }

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, program], env=environment)

    consumer = start()
    try:
        with amqp.Connection(rabbitmq, *LOGIN.split(":"), confirm_publish=True) as connection:
            channel = connection.channel()
            assert wait_until(lambda: _has_queue(connection, "unwind-commands"), BOOT_TIMEOUT)
            for number in range(COMMANDS):
                arguments = {"order_id": number + 1, "member_id": "s-881"}
                command = {"task": "npb.file", "arguments": arguments, "request_id": f"rabbit-{number}"}
                channel.basic_publish(amqp.Message(json.dumps(command), delivery_mode=2), routing_key="unwind-commands")
                if number == COMMANDS // 4:
                    assert wait_until(lambda: database_rows.count(SubmissionRow) > 0, DRAIN_TIMEOUT)
                    consumer.kill()
                    consumer.wait()
                    consumer = start()
            for body in [*POISON] * REPEATS:
                channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key="unwind-commands")
            assert wait_until(lambda: database_rows.count(SubmissionRow) == COMMANDS, DRAIN_TIMEOUT)
            submitted = database_rows.column(SubmissionRow.request_id)
            assert sorted(submitted) == sorted(f"rabbit-{number}" for number in range(COMMANDS))
            assert _read_rejected(connection, REPEATS * len(POISON)) == POISON
            assert consumer.poll() is None
    finally:
        consumer.kill()
        consumer.wait()


def _has_queue(connection: amqp.Connection, name: str) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
            return True
    except amqp.NotFound:
        return False


def _read_rejected(connection: amqp.Connection, count: int) -> dict[bytes, Any]:
    messages: list[amqp.Message] = []
    with connection.channel() as channel:

        def has_all() -> bool:
            if (message := channel.basic_get("unwind-rejected", no_ack=True)) is not None:
                messages.append(message)
            return len(messages) == count

        assert wait_until(has_all, DRAIN_TIMEOUT)
    bodies = [message.body if isinstance(message.body, bytes) else message.body.encode() for message in messages]
    return {body: message.headers["reason"] for body, message in zip(bodies, messages, strict=True)}
