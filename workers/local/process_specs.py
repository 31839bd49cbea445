"""Which programs make a running installation, and with which words is each started?

Two worker groups, so that a long sweep never keeps a command waiting; one beat; Flower, which only looks, and metrics, which
machines read. `up` and `demo` start the same ones.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from workers.embedded import free_port
from workers.local import FLOWER_CONFIG
from workers.local.supervisor import Program, Supervisor, with_parent_death
from workers.settings import Settings

LOOPBACK_FOR_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where whoever listens everywhere can be asked here
# Group -> its queues. Together they must cover every queue there is: a message in an unread queue waits for ever.
WORKER_GROUPS = {"commands": ("commands", "submissions", "consequences"), "sweeps": ("sweeps", "notices")}


def worker_program(settings: Settings, supervisor: Supervisor, group: str) -> Program:
    """One worker group. Gossip and mingle stay off: fewer connections to break, and a faster start."""
    words = ["-A", "workers.app", "worker", "-Q", ",".join(WORKER_GROUPS[group]), "-n", f"{group}@%h"]
    words += ["-c", str(settings.concurrency), "-l", settings.log_level, "--without-gossip", "--without-mingle"]
    ready = supervisor.ready_file(group).exists
    return Program(group, with_parent_death(words), settings.environment(), ready, celery=words)


def beat_program(settings: Settings, supervisor: Supervisor) -> Program:
    """The clock that looks at the timetable. Two of them would change nothing but the number of ticks."""
    words = ["-A", "workers.app", "beat", "-l", settings.log_level]
    ready = supervisor.ready_file("beat").exists
    return Program("beat", with_parent_death(words), settings.environment(), ready, celery=words)


def flower_program(settings: Settings) -> tuple[Program, str]:
    """Flower and its address. Whatever else there is to set stands in `flowerconfig.py`."""
    port = settings.flower_port or free_port()
    words = ["-A", "workers.app", "flower", f"--conf={FLOWER_CONFIG}", f"--port={port}"]
    environment = settings.environment()  # the login too: a command line shows it to everybody
    host = LOOPBACK_FOR_WILDCARD.get(settings.flower_address, settings.flower_address)
    program = Program("flower", with_parent_death(words), environment, _answers(host, port), celery=words)
    return program, f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def metrics_program(settings: Settings) -> tuple[Program, str]:
    """What machines read, and its address: a process of its own, for it must answer while workers do not."""
    port = settings.metrics_port or free_port()
    words = ["metrics"]
    environment = settings.environment() | {"UNWIND_METRICS_PORT": str(port)}
    host = LOOPBACK_FOR_WILDCARD.get(settings.metrics_address, settings.metrics_address)
    program = Program("metrics", with_parent_death(words), environment, _answers(host, port), celery=words)
    return program, f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _answers(host: str, port: int) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            socket.create_connection((host, port), timeout=0.5).close()
        except OSError:
            return False
        return True

    return answers


def describe_mail_target(settings: Settings) -> str:
    """Where mails go, for a person."""
    if settings.smtp_url is None:
        return f"files in {display_path(settings.mail_dir)}"
    return "the mail server of UNWIND_SMTP_URL"


def display_path(path: Path) -> str:
    """A path as a person standing here would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
