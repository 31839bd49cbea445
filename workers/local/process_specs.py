"""The programs of an installation and their command lines.

Three worker groups, so that a long sweep never delays a command, nor a slow mail server a sweep; one beat; Flower; the
metrics server; and the HTTP interface. `up` and `demo` start the same programs."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from workers.embedded import free_port
from workers.local import FLOWER_CONFIG
from workers.local.parent_death import with_parent_death
from workers.local.supervisor import SupervisedProgram, Supervisor
from workers.settings import Settings

LOOPBACK_FOR_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a wildcard listener is reachable locally
# Queues by group. Together the groups must read every queue.
WORKER_GROUPS = {
    "commands": ("commands", "submissions", "consequences"),
    "sweeps": ("sweeps", "outbox"),
    "emails": ("notices", "audits"),
}


def worker_program(
    settings: Settings, supervisor: Supervisor, group: str, queues: Sequence[str] = ()
) -> SupervisedProgram:
    # The program of a worker group. Gossip and mingle stay off: fewer connections, and a faster start.
    args = ["-A", "workers.app", "worker", "-Q", ",".join(queues or WORKER_GROUPS[group]), "-n", f"{group}@%h"]
    args += ["-c", str(settings.concurrency), "-l", settings.log_level, "--without-gossip", "--without-mingle"]
    ready = supervisor.ready_file(group).exists
    return SupervisedProgram(group, with_parent_death(args), settings.environment(), ready, celery_args=args)


def beat_program(settings: Settings, supervisor: Supervisor) -> SupervisedProgram:
    # The beat program. A second beat would only send more ticks.
    args = ["-A", "workers.app", "beat", "-l", settings.log_level]
    ready = supervisor.ready_file("beat").exists
    return SupervisedProgram("beat", with_parent_death(args), settings.environment(), ready, celery_args=args)


def flower_program(settings: Settings) -> tuple[SupervisedProgram, str]:
    port = settings.flower_port or free_port()
    args = ["-A", "workers.app", "flower", f"--conf={FLOWER_CONFIG}", f"--port={port}"]
    environment = settings.environment()  # the login too, since command lines are public
    host = LOOPBACK_FOR_WILDCARD.get(settings.flower_address, settings.flower_address)
    program = SupervisedProgram(
        "flower", with_parent_death(args), environment, _accepts_connections(host, port), celery_args=args
    )
    return program, f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def metrics_program(settings: Settings) -> tuple[SupervisedProgram, str]:
    port = settings.metrics_port or free_port()
    args = ["metrics"]
    environment = settings.environment() | {"UNWIND_METRICS_PORT": str(port)}
    host = LOOPBACK_FOR_WILDCARD.get(settings.metrics_address, settings.metrics_address)
    program = SupervisedProgram(
        "metrics", with_parent_death(args), environment, _accepts_connections(host, port), celery_args=args
    )
    return program, f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def web_program(settings: Settings, *, demo: bool = False) -> tuple[SupervisedProgram, str]:
    port = settings.web_port or free_port()
    environment = settings.environment() | {"UNWIND_WEB_PORT": str(port)}
    host = LOOPBACK_FOR_WILDCARD.get(settings.web_address, settings.web_address)
    if demo:
        environment |= {"UNWIND_WEB_DEMO": "1", "UNWIND_WEB_LINK_SECRET": secrets.token_urlsafe(32)}
    args = ["web"]
    program = SupervisedProgram(
        "web", with_parent_death(args), environment, _accepts_connections(host, port), celery_args=args
    )
    return program, f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _accepts_connections(host: str, port: int) -> Callable[[], bool]:
    def accepts_connections() -> bool:
        try:
            socket.create_connection((host, port), timeout=0.5).close()
        except OSError:
            return False
        return True

    return accepts_connections


def describe_mail_target(settings: Settings) -> str:
    if settings.smtp_url is None:
        return f"files in {display_path(settings.mail_dir)}"
    return "the mail server of UNWIND_SMTP_URL"


def display_path(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
