"""Tests that Flower never listens beyond loopback without a login, however it is started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.monitoring.doctor import environment as surroundings
from workers.monitoring.doctor.context import Context
from workers.monitoring.flower_guard import find_running_flower, is_flower_loopback_only
from workers.settings import CHECKOUT, Settings, load_settings

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(120)]

FOREIGN_CONFIG = "address = '0.0.0.0'\nread_only = False\n"
BEYOND = {
    "an option": (["--address=0.0.0.0"], {}),
    "an option, IPv6": (["--address=::"], {}),
    "a login that is none": (["--address=0.0.0.0", "--basic_auth=:"], {}),
    "another file": (["--conf=theirs.py"], {}),
    "a variable and another file": (["--conf=empty.py"], {"FLOWER_ADDRESS": "0.0.0.0"}),
    "a variable for the file": ([], {"FLOWER_CONF": "theirs.py"}),
}
WITHIN = {
    "from another folder": ([], {}),
    "everything opened": (["--read-only=false"], {"FLOWER_UNAUTHENTICATED_API": "true"}),
    "an empty address": (["--address=", "--conf=empty.py"], {"FLOWER_UNAUTHENTICATED_API": "true"}),
}


@pytest.fixture
def other_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, text in {"flowerconfig.py": FOREIGN_CONFIG, "theirs.py": FOREIGN_CONFIG, "empty.py": ""}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def settings(tmp_path: Path, broker_url: str) -> Settings:
    return load_settings(data_dir=tmp_path / "data", broker_url=broker_url)


@contextlib.contextmanager
def flower(
    settings: Settings, folder: Path, options: list[str], variables: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "celery", "-A", "workers.app", "flower", *options]
    environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(CHECKOUT), **variables}
    with subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()  # Flower may lose a signal that comes while it starts


def _status(url: str) -> tuple[int, str | None]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Access-Control-Allow-Origin"]


def _addresses(process: subprocess.Popen[str]) -> set[str]:
    connections = psutil.Process(process.pid).net_connections()
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("how", BEYOND)
def test_address_beyond_loopback_without_a_login_is_refused(settings: Settings, other_folder: Path, how: str) -> None:
    options, variables = BEYOND[how]
    with flower(settings, other_folder, [*options, f"--port={free_port()}"], variables) as process:
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "Set UNWIND_FLOWER_LOGIN=user:password" in process.stderr.read()


@pytest.mark.parametrize("how", WITHIN)
def test_flower_listens_on_loopback_and_is_read_only_from_any_directory(
    settings: Settings, other_folder: Path, how: str
) -> None:
    options, variables = WITHIN[how]
    port = free_port()
    with flower(settings, other_folder, [*options, f"--port={port}"], variables) as process:
        assert wait_until(lambda: bool(find_running_flower(settings)) or process.poll() is not None, 60)
        assert _addresses(process) == {"127.0.0.1"}
        assert _status(f"http://127.0.0.1:{port}/") == (200, None)
        assert _status(f"http://127.0.0.1:{port}/api/workers") in [(401, None), (403, None)]
        assert [*surroundings.check_flower(Context(settings))] == []


def test_doctor_names_the_address_of_flower(settings: Settings, other_folder: Path) -> None:
    port = free_port()
    options = ["--address=0.0.0.0", "--basic_auth=ops:secret-word", f"--port={port}"]
    with flower(settings, other_folder, options, {}) as process:
        assert wait_until(lambda: bool(find_running_flower(settings)) or process.poll() is not None, 60)
        assert _addresses(process) == {"0.0.0.0"}
        (finding,) = surroundings.check_flower(Context(settings))
        assert finding.code == "FLOWER_OPEN"
        assert "0.0.0.0" in finding.message
        assert "secret-word" not in str(finding)
    assert wait_until(lambda: not find_running_flower(settings), 30)
    assert [*surroundings.check_flower(Context(settings))] == []


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.7", False),
        ("no-such-name.invalid", False),
    ],
)
def test_loopback_addresses_are_recognized(address: str, loopback: bool) -> None:
    assert is_flower_loopback_only(address) is loopback
