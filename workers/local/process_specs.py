"""The programs of an installation and their command lines.

Three worker groups, so that a long sweep never delays a command, nor a slow mail server a sweep; one beat; Flower; the
metrics server; and the HTTP interface. `up` and `demo` start the same programs."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.embedded.data_dir import free_port
from workers.local import FLOWER_CONFIG
from workers.local.parent_death import with_parent_death
from workers.local.supervisor import SupervisedProgram
from workers.settings import Settings

LOOPBACK_FOR_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a wildcard listener is reachable locally
# Queues by group. Together the groups must read every queue.
WORKER_GROUPS = {
    "commands": ("commands", "submissions", "consequences"),
    "sweeps": ("sweeps", "outbox"),
    "emails": ("notices", "audits"),
}


def worker_program(settings: Settings, group: str, queues: Sequence[str] = ()) -> SupervisedProgram:
    # The program of a worker group. Gossip and mingle stay off: fewer connections, and a faster start.
    args = ["-A", "workers.app", "worker", "-Q", ",".join(queues or WORKER_GROUPS[group]), "-n", f"{group}@%h"]
    args += ["-c", str(settings.concurrency), "-l", settings.log_level, "--without-gossip", "--without-mingle"]
    return SupervisedProgram(group, with_parent_death(args), settings.environment(), celery_args=args)


def beat_program(settings: Settings) -> SupervisedProgram:
    # The beat program. A second beat would only send more ticks.
    args = ["-A", "workers.app", "beat", "-l", settings.log_level]
    return SupervisedProgram("beat", with_parent_death(args), settings.environment(), celery_args=args)


def flower_program(settings: Settings) -> tuple[SupervisedProgram, str]:
    port = settings.flower_port or free_port()
    args = ["-A", "workers.app", "flower", f"--conf={FLOWER_CONFIG}", f"--port={port}"]
    environment = settings.environment()  # the login too, since command lines are public
    program, url = _listening_program("flower", args, environment, settings.flower_address, port)
    return program, f"{url}/"


def metrics_program(settings: Settings) -> tuple[SupervisedProgram, str]:
    port = settings.metrics_port or free_port()
    environment = settings.model_copy(update={"metrics_port": port}).environment()
    program, url = _listening_program("metrics", ["metrics"], environment, settings.metrics_address, port)
    return program, f"{url}/metrics"


def web_program(settings: Settings, *, demo: bool = False) -> tuple[SupervisedProgram, str]:
    port = settings.web_port or free_port()
    environment = settings.model_copy(update={"web_port": port}).environment()
    if demo:
        environment |= {"UNWIND_WEB_DEMO": "1", "UNWIND_WEB_LINK_SECRET": secrets.token_urlsafe(32)}
    return _listening_program("web", ["web"], environment, settings.web_address, port)


def _listening_program(
    name: str, args: Sequence[str], environment: Mapping[str, str], address: str, port: int
) -> tuple[SupervisedProgram, str]:
    # The program, which is ready once it accepts connections, and the URL by which this machine reaches it.
    host = LOOPBACK_FOR_WILDCARD.get(address, address)

    def accepts_connections() -> bool:
        try:
            socket.create_connection((host, port), timeout=0.5).close()
        except OSError:
            return False
        return True

    program = SupervisedProgram(name, with_parent_death(args), environment, accepts_connections, celery_args=args)
    return program, http_url(host, port)


def http_url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def describe_mail_target(settings: Settings) -> str:
    if settings.smtp_url is None:
        return f"files in {display_path(settings.mail_dir)}"
    return "the mail server of UNWIND_SMTP_URL"


def display_path(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
