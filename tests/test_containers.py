"""Tests of the container files, read as text without Docker: images, services, rights, secrets and commands."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.bin.celery import celery

from schedules.routes import QUEUES
from workers.app import SOFT_SHUTDOWN_SECONDS
from workers.cli import group
from workers.local.process_specs import WORKER_GROUPS
from workers.settings import load_settings, unknown_variables
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

CHECKOUT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
WORKERS = [f"worker-{group_name}" for group_name in WORKER_GROUPS]
OWN_SERVICES = ["migrate", *WORKERS, "beat", "flower", "metrics", "web"]
PROFILES = {"celery-exporter": ["metrics"], "prometheus": ["metrics"], "grafana": ["metrics"], "mailpit": ["mail"]}
GRAFANA = CHECKOUT / "deploy" / "grafana"
SECRETS: dict[str, Any] = COMPOSE["secrets"]
LASTING = sorted(set(SERVICES) - {"migrate"})


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def words(name: str) -> list[str]:
    return [re.sub(r"\$\{\w+:-([^}]*)}", r"\1", str(word)) for word in SERVICES[name].get("command", [])]


def test_compose_has_the_documented_services() -> None:
    assert set(SERVICES) == {"postgres", "redis", *PROFILES, *OWN_SERVICES}
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == PROFILES
    assert {SERVICES[name]["image"] for name in OWN_SERVICES} == {"unwind:0.1.0"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?[\w.-]*", SERVICES[name]["image"])


def test_image_is_pinned_locked_by_hash_and_not_root() -> None:
    assert re.search(r"^FROM python:3\.12\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert DOCKERFILE.index("USER unwind") < DOCKERFILE.index("CMD [")
    assert "USER root" not in DOCKERFILE


def test_image_contains_the_product_packages_only() -> None:
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE))
    floors = {"policies", "models", "tasks", "schedules", "workers", "web"}
    assert copied == allowed == floors | {"LICENSE", "requirements.lock", "pyproject.toml", "flowerconfig.py"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_open_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("127.0.0.1:"), port
    assert SERVICES[name].get("network_mode") is None
    assert "privileged" not in SERVICES[name]


@pytest.mark.parametrize("name", LASTING)
def test_services_have_health_checks_and_restart(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


def test_services_start_after_the_migration() -> None:
    assert words("migrate")[3:5] == ["migrate", "--wait"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in (*WORKERS, "beat"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert set(SERVICES["flower"]["depends_on"]) == set(WORKERS)


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_docker_waits_longer_than_the_soft_shutdown(name: str) -> None:
    """The soft shutdown takes 20 s, and one task at most 60 s."""
    assert seconds(SERVICES[name]["stop_grace_period"]) > max(HARD_TIME_LIMIT_SECONDS, SOFT_SHUTDOWN_SECONDS)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_containers_have_no_privileges_and_rotate_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    assert (
        name in (*OWN_SERVICES, "prometheus", "celery-exporter") or service["user"]
    )  # those three name theirs in the image
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_workers_read_every_queue() -> None:
    """A message in an unread queue would wait forever."""
    groups = {}
    for name in WORKERS:
        command = words(name)
        groups[command[command.index("-n") + 1].removesuffix("@%h")] = tuple(
            command[command.index("-Q") + 1].split(",")
        )
        assert {"--without-gossip", "--without-mingle"} <= set(command)
    assert groups == WORKER_GROUPS
    assert sorted(queue for queues in groups.values() for queue in queues) == sorted(QUEUES)


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_command_lines_are_accepted(name: str) -> None:
    """Celery or click would refuse a wrong command line only when it is deployed."""
    command = words(name)
    if command[:3] == ["python", "-m", "workers"]:
        own_command = group.get_command(click.Context(group), command[3])
        assert own_command is not None
        own_command.make_context(command[3], command[4:])
        return
    assert command[:3] == ["celery", "-A", "workers.app"]
    celery_command = celery.get_command(click.Context(celery), command[3])
    assert celery_command is not None
    if command[3] != "flower":  # Flower's options are Tornado's
        known = {
            option for parameter in celery_command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        used = {word.partition("=")[0] for word in command[4:] if word.startswith("-")}
        assert used <= known


def test_flower_inspects_workers_and_keeps_its_data() -> None:
    from flower import options  # noqa: PLC0415 - it defines options of the whole process

    command = words("flower")
    known = set(options.default_options.as_dict())
    assert {word.removeprefix("--").partition("=")[0] for word in command[4:]} <= known
    assert "--conf=/app/flowerconfig.py" in command
    assert (CHECKOUT / "flowerconfig.py").exists()
    assert SERVICES["flower"]["environment"]["UNWIND_FLOWER_LOGIN_FILE"] == "/run/secrets/flower_login"
    assert "UNWIND_FLOWER_READ_ONLY" not in SERVICES["flower"]["environment"]
    assert SERVICES["flower"]["volumes"] == ["flower:/data"]


def test_health_checks_do_not_import_the_application() -> None:
    for name in (*WORKERS, "beat"):
        probe, command = SERVICES[name]["healthcheck"]["test"]
        assert probe == "CMD-SHELL"
        assert command == " && ".join(f"python -m workers.monitoring.probes {state}" for state in ("ready", "alive"))
        assert SERVICES[name]["environment"]["UNWIND_ALIVE_FILE"].startswith("/tmp/")
        assert SERVICES[name]["environment"]["UNWIND_READY_FILE"].startswith("/tmp/")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_temporary_directories_have_a_size(name: str) -> None:
    """Without one, a tmpfs takes up to half of the machine's memory."""
    mounts = SERVICES[name].get("tmpfs", [])
    assert all(re.fullmatch(r"/[\w/]+:size=\d+m", mount) for mount in mounts)
    assert name not in OWN_SERVICES or [mount.partition(":")[0] for mount in mounts] == ["/tmp"]


def test_image_is_readable_after_a_clone_with_umask_077_and_has_no_anonymous_volume() -> None:
    rights = DOCKERFILE.index("RUN chmod -R u=rwX,go=rX /app")
    assert DOCKERFILE.rindex("\nCOPY ") < rights < DOCKERFILE.index("USER unwind")
    assert not re.search(r"^VOLUME", DOCKERFILE, re.MULTILINE)


def test_containers_get_known_variables_only() -> None:
    """A misspelled setting would be ignored."""
    for name in OWN_SERVICES:
        variables = dict.fromkeys((name_ for name_ in SERVICES[name]["environment"] if name_.startswith("UNWIND_")), "")
        assert unknown_variables(variables) == []
        secret_variables = {
            name_.removesuffix("_FILE") for name_ in set(SERVICES[name]["environment"]) - set(variables)
        }
        assert secret_variables <= {"DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}


def test_secrets_are_files_that_only_their_service_gets() -> None:
    text = (CHECKOUT / "docker-compose.yml").read_text()
    assert not re.findall(r"\$\{\w*(?:PASSWORD|LOGIN|SECRET)", text)
    assert {name for service in SERVICES.values() for name in service.get("secrets", [])} == set(SECRETS)
    for name, service in SERVICES.items():
        secrets = set(re.findall(r"/run/secrets/(\w+)", yaml.safe_dump(service)))
        assert secrets == set(service.get("secrets", [])), name
    assert "database_url" not in SERVICES["flower"]["secrets"]
    assert not any("broker_url" in SERVICES[name]["secrets"] for name in ("flower", "metrics", "web"))


def test_generated_secrets_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "secrets"
    command = [CHECKOUT / "deploy" / "make-secrets", folder]
    subprocess.run(command, check=True, capture_output=True)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert {Path(secret["file"]).name for secret in SECRETS.values()} <= set(before)
    assert all(secret["file"].startswith("deploy/secrets/") for secret in SECRETS.values())
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("worker-commands", "flower", "metrics"):
        for variable, value in SERVICES[name]["environment"].items():
            if variable.endswith(("_URL_FILE", "_BACKEND_FILE", "_LOGIN_FILE")):
                monkeypatch.setenv(variable, value.replace("/run/secrets", str(folder)))
        settings = load_settings()
        assert settings.broker_url is not None
        user, password = re.findall(r"//([^:]*):([^@]*)@", settings.broker_url.get_secret_value())[0]
        assert f"user {user} on >{password} " in before["redis_users"]
        monkeypatch.delenv("CELERY_RESULT_BACKEND_FILE", raising=False)
    assert f":{before['postgres_password'].strip()}@postgres" in before["database_url"]
    assert "-secret " not in before["redis_users"]
    subprocess.run(command, check=True, capture_output=True)
    assert before == {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("variable", "value", "secret", "setting", "address"),
    [
        ("SMTP_URL", url := "smtp://me:hunter2@mail.example.com:587?starttls=1", "smtp_url", "smtp_url", url),
        ("POSTGRES_DIRECT_AT", "db:5433", "direct_database_url", "direct_database_url", "@db:5433/unwind"),
    ],
)
def test_mail_server_and_way_past_a_pooler_are_secrets_that_may_be_empty(
    variable: str, value: str, secret: str, setting: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"UNWIND_{secret.upper()}"
    for service in ("worker-commands", "worker-emails", "migrate", "web"):
        assert name not in SERVICES[service]["environment"]
    assert SERVICES["worker-emails"]["environment"][f"{name}_FILE"] == f"/run/secrets/{secret}"
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@pooler/unwind")
    for folder, given, expected in ((tmp_path / "none", "", ""), (tmp_path / "some", value, address)):
        monkeypatch.setenv(variable, given)
        subprocess.run([CHECKOUT / "deploy" / "make-secrets", folder], check=True, capture_output=True)
        monkeypatch.setenv(f"{name}_FILE", str(folder / secret))
        loaded = getattr(load_settings(), setting)
        assert (loaded.get_secret_value() if loaded else "").endswith(expected)
        assert (loaded is None) == (not expected)


def test_redis_is_durable_and_has_a_user_for_each_role() -> None:
    command = words("redis")
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings["--appendonly"] == "yes"
    assert settings["--appendfsync"] == "everysec"
    assert settings["--maxmemory-policy"] == "noeviction"
    assert settings["--aclfile"] == "/run/secrets/redis_users"
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_scrape_targets_and_rules_exist() -> None:
    folder = CHECKOUT / "deploy" / "prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"unwind": ["metrics:9464"], "unwind-http": ["web:8080"], "celery": ["celery-exporter:9808"]}
    assert SERVICES["metrics"]["environment"]["UNWIND_METRICS_PORT"] == "9464"
    assert config["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert (folder / "alerts.yml").exists()


def test_grafana_reads_the_dashboards_and_the_prometheus_of_the_profile() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/unwind.yml").read_text())["providers"][0]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    for path in (GRAFANA / "dashboards").iterdir():
        panels = json.loads(path.read_text())["panels"]
        uids = {part["datasource"]["uid"] for panel in panels for part in (panel, *panel["targets"])}
        assert uids == {source["uid"]}
        assert len({panel["id"] for panel in panels}) == len(panels)


def test_used_volumes_and_networks_are_declared() -> None:
    used = {str(volume).partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    used -= {folder for folder in used if folder.startswith("./") and (CHECKOUT / folder).is_dir()}
    assert used == set(COMPOSE["volumes"])
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])
