"""Would the containers do what the checkout does? Read as text: where this is tested there may be no Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.bin.celery import celery

from workers.cli import COMMANDS
from workers.programs import GROUPS
from workers.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
OURS = ["migrate", "worker-commands", "worker-sweeps", "beat", "flower"]
LASTING = sorted(set(SERVICES) - {"migrate"})


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def words(name: str) -> list[str]:
    return [re.sub(r"\$\{\w+:-([^}]*)}", r"\1", str(word)) for word in SERVICES[name].get("command", [])]


def test_the_installation_has_the_parts_that_the_documents_name() -> None:
    """Postgres, redis, migrate, workers by queue, beat, flower, mailpit; one image for ours."""
    assert set(SERVICES) == {"postgres", "redis", "mailpit", *OURS}
    assert {SERVICES[name]["image"] for name in OURS} == {"unwind:0.1.0"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_to_a_version(name: str) -> None:
    """F63: what runs is what was tested, not what was newest that night."""
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?[\w.-]*", SERVICES[name]["image"])


def test_the_image_is_pinned_locked_by_hash_and_not_root() -> None:
    """One non-root image, installed from the hashes of the lock."""
    assert re.search(r"^FROM python:3\.12\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert DOCKERFILE.index("USER unwind") < DOCKERFILE.index("CMD [")
    assert "USER root" not in DOCKERFILE


def test_the_image_holds_every_floor_and_nothing_else_of_the_checkout() -> None:
    """No tests, no history, no .env in the image."""
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE))
    floors = {"policies", "models", "tasks", "schedules", "workers"}
    assert copied == allowed == floors | {"requirements.lock", "pyproject.toml", "flowerconfig.py"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_open_on_loopback_only(name: str) -> None:
    """Contract 1: all listen on loopback only."""
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), port
    assert SERVICES[name].get("network_mode") is None
    assert "privileged" not in SERVICES[name]


@pytest.mark.parametrize("name", LASTING)
def test_whatever_lasts_is_watched_and_started_again(name: str) -> None:
    """F28: a worker's main process may exit on its own."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


def test_nothing_works_before_the_schema_is_there() -> None:
    """F31: workers before producers, the schema before both."""
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("worker-commands", "worker-sweeps", "beat"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert set(SERVICES["flower"]["depends_on"]) == {"worker-commands", "worker-sweeps"}


@pytest.mark.parametrize("name", OURS)
def test_docker_waits_longer_than_the_soft_shutdown(name: str) -> None:
    """Reliability 4.1: worker_soft_shutdown_timeout is 20 s, the hard limit of one task 60 s."""
    assert seconds(SERVICES[name]["stop_grace_period"]) >= 60


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_nothing_special(name: str) -> None:
    """Read-only root, no capabilities, no new ones."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_queues_of_all_workers_together_are_all_queues() -> None:
    """F19: a message in a queue that nobody reads waits for ever. Same groups as `./run up`."""
    groups = {}
    for name in ("worker-commands", "worker-sweeps"):
        said = words(name)
        groups[said[said.index("-n") + 1].removesuffix("@%h")] = tuple(said[said.index("-Q") + 1].split(","))
        assert {"--without-gossip", "--without-mingle"} <= set(said)
    assert groups == GROUPS
    assert sorted(queue for queues in groups.values() for queue in queues) == [
        "commands",
        "consequences",
        "notices",
        "sweeps",
    ]


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_with_these_words(name: str) -> None:
    """A command line that Celery or our own program would refuse fails here, not on the first deployment."""
    said = words(name)
    if said[:3] == ["python", "-m", "workers"]:
        assert said[3] in COMMANDS
        return
    assert said[:3] == ["celery", "-A", "workers.app"]
    command = celery.get_command(click.Context(celery), said[3])
    assert command is not None
    if said[3] != "flower":  # Flower's options are Tornado's
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in said[4:] if word.startswith("-")}
        assert used <= known


def test_flower_looks_only_and_asks_who_is_there() -> None:
    """X10: a logged-in Flower user could call any task as anybody."""
    from flower import options

    said = words("flower")
    assert "--read_only=True" in said
    known = set(options.default_options.as_dict())
    assert {word.removeprefix("--").partition("=")[0] for word in said[4:]} <= known
    assert SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_LOGIN:?")


def test_our_containers_get_only_variables_that_are_read() -> None:
    """A setting with a typing error would be ignored in silence."""
    known = {str(field.validation_alias) for field in Settings.model_fields.values()} | {"FLOWER_BASIC_AUTH"}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known


def test_no_secret_has_a_default_and_none_is_on_a_command_line() -> None:
    """Passwords come from .env or the start is refused; `ps` shows none."""
    text = (CHECKOUT / "docker-compose.yml").read_text()
    assert not re.findall(r"\$\{\w*(?:PASSWORD|LOGIN)(?::-|})", text)
    for service in SERVICES.values():
        assert not re.search(r"(?<!\$)\$\{?\w*(PASSWORD|LOGIN)", " ".join(map(str, service.get("command", []))))


def test_redis_keeps_what_it_was_given() -> None:
    """F10, F11, F15: append-only file, noeviction."""
    said = " ".join(words("redis"))
    assert "appendonly yes" in said
    assert "appendfsync everysec" in said
    assert "maxmemory-policy noeviction" in said
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_every_volume_and_network_that_is_used_is_declared() -> None:
    """Compose refuses a file that names what it does not declare."""
    used = {str(volume).partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])
