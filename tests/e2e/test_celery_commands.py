"""Tests that Celery's own commands start no servers and open no connections that they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.nodes import CHECKOUT
from workers.embedded.client import embedded_servers

pytestmark = pytest.mark.e2e

NO_SERVERS = "No servers run in"
COMMANDS = {
    "--help": (0, "Commands:"),
    "-A workers.app --help": (0, "Commands:"),
    "-A workers.app worker --help": (0, "Usage:"),
    "-A workers.app report": (0, "software ->"),
    "-A workers.app inspect --list": (0, "active_queues"),
    "-A workers.app inspect ping": (1, NO_SERVERS),
    "-A workers.app control shutdown": (1, NO_SERVERS),
    "-A workers.app status": (1, NO_SERVERS),
    "-A workers.app worker -P threads": (1, "do not run in the pool"),
}
REFUSE_CONNECTIONS = """
import os, socket
def refuse(*_):
    os.write(2, b"a connection was opened")
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = refuse
"""


def start(words: str, folder: Path) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "C_FORCE_ROOT": "1"}
    environment |= {"UNWIND_DATA": str(folder / "data"), "PYTHONPATH": os.pathsep.join((str(folder), str(CHECKOUT)))}
    return subprocess.Popen(
        [sys.executable, "-m", "celery", *words.split()],
        env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_read_only_commands_start_no_servers_and_open_no_connection(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(REFUSE_CONNECTIONS)
    for words, process in [(words, start(words, tmp_path)) for words in COMMANDS]:
        output, _ = process.communicate(timeout=100)
        status, sentence = COMMANDS[words]
        assert (process.returncode, sentence in output) == (status, True), (words, output)
        assert "Traceback" not in output
    assert not (tmp_path / "data" / "servers").exists()


def test_an_inspection_asks_the_servers_that_run(tmp_path: Path) -> None:
    with embedded_servers(tmp_path / "data", durable=False):
        output, _ = start("-A workers.app inspect ping --timeout 0.2", tmp_path).communicate(timeout=100)
    assert "No nodes replied" in output
