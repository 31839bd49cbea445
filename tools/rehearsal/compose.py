"""Starts the services of docker-compose.yml with podman, each option as Docker documents it.

podman-compose ignores `condition: service_healthy` on podman 4, and podman's own health timers need systemd: here the
conditions and the health checks of the file decide. A key of the file that is unknown here is an error.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.rehearsal.podman import CannotRehearse, Podman, WrongResult

PROJECT = "unwind-rehearsal"
RESTART_TIMEOUT = 60.0
NETWORK = f"{PROJECT}_inside"
OPTIONS = {
    "image", "build", "init", "restart", "environment", "secrets", "networks", "read_only", "tmpfs", "cap_drop",
    "security_opt", "stop_grace_period", "logging", "command", "entrypoint", "user", "volumes", "ports", "shm_size",
    "healthcheck", "depends_on", "profiles",
}  # fmt: skip


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace `${NAME:-default}` and `$$`, as compose does."""
    text = re.sub(r"\$\{(\w+):-([^}]*)}", lambda match: variables.get(match[1]) or match[2], text)
    return text.replace("$$", "$")


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


class Compose:
    """The services without a profile. `variables` stand for those of `.env`, `images` replace official ones."""

    def __init__(
        self,
        podman: Podman,
        checkout: Path,
        variables: Mapping[str, str],
        images: Mapping[str, str],
        without: Iterable[str] = (),
    ) -> None:
        self._podman, self._checkout, self._images = podman, checkout, images
        file: dict[str, Any] = yaml.safe_load(interpolate((checkout / "docker-compose.yml").read_text(), variables))
        self._secrets: dict[str, Any] = file["secrets"]
        self.services: dict[str, dict[str, Any]] = {
            name: service
            for name, service in file["services"].items()
            if not service.get("profiles") and name not in without
        }
        for name, service in self.services.items():
            if unknown := service.keys() - OPTIONS:
                raise CannotRehearse(f"{name}: the rehearsal does not know {', '.join(sorted(unknown))}")

    @property
    def lasting(self) -> list[str]:
        """The services that run until they are stopped."""
        return [name for name, service in self.services.items() if service["restart"] != "no"]

    def up(self, report: Callable[[str], None], *names: str) -> None:
        """Start all services, or the named ones, once what they depend on is ready; return when they are healthy."""
        if self._podman.run("network", "exists", NETWORK).returncode:
            self._podman("network", "create", NETWORK)
        satisfied: set[tuple[str, str]] = set()
        started = [name for name in self._in_order() if not names or name in names]
        for name in started:
            for needed, how in (self.services[name].get("depends_on") or {}).items():
                if (needed, how["condition"]) not in satisfied:
                    self._await_condition(needed, how["condition"], report)
                    satisfied.add((needed, how["condition"]))
            options, image, words = self._arguments(name, self.container(name))
            self._podman("run", "--detach", *options, image, *words)
        for name in started:
            if name in self.lasting and (name, "service_healthy") not in satisfied:
                self._await_condition(name, "service_healthy", report)

    def check_connection(self, name: str, port: int) -> None:
        """See whether this machine lets one container reach another by its name."""
        script = f"import socket; socket.create_connection(('{name}', {port}), timeout=10)"
        self._podman("run", "--rm", f"--network={NETWORK}", self._images["python"], "python", "-c", script)

    def container(self, name: str) -> str:
        return f"{PROJECT}_{name}"

    def state(self, name: str, field: str) -> str:
        return self._podman("inspect", "--format", f"{{{{.State.{field}}}}}", self.container(name))

    def kill(self, name: str) -> None:
        """Send KILL to the first process of the container, and wait until its restart policy has started another."""
        killed = self.state(name, "Pid")
        os.kill(int(killed), signal.SIGKILL)
        until = time.monotonic() + RESTART_TIMEOUT
        while self.state(name, "Pid") in {"0", killed}:
            if time.monotonic() > until:
                raise CannotRehearse(f"{name} was not started again:\n{self.logs(name)}")
            time.sleep(0.1)

    def is_healthy(self, name: str) -> bool:
        check = self.services[name]["healthcheck"]
        kind, *words = check["test"]
        command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        try:
            return (
                self._podman.run(
                    "exec", self.container(name), *command, timeout=seconds(check["timeout"]) + 1
                ).returncode
                == 0
            )
        except subprocess.TimeoutExpired:
            return False

    def wait_until_healthy(self, name: str, limit: float) -> float:
        """Return after how many seconds the service is healthy."""
        started_at = time.monotonic()
        while not self.is_healthy(name):
            if time.monotonic() - started_at > limit:
                ended = self._podman("inspect", "--format", "{{.RestartCount}}", self.container(name)) != "0"
                # Neither a slow machine nor a stand-in is the product.
                problem = WrongResult if ended and "build" in self.services[name] else CannotRehearse
                raise problem(f"{name} is not healthy after {limit:.0f} s:\n{self.logs(name)}")
            time.sleep(0.3)
        return time.monotonic() - started_at

    def logs(self, name: str, lines: int = 15) -> str:
        done = self._podman.run("logs", "--tail", str(lines), self.container(name))
        return done.stdout + done.stderr

    def recent_logs(self, name: str, seconds_: int) -> str:
        done = self._podman.run("logs", f"--since={seconds_}s", self.container(name))
        return done.stdout + done.stderr

    def exec(self, name: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self._podman.run("exec", self.container(name), *words, timeout=timeout)

    def run_once(self, name: str, script: str, stdin: Path) -> None:
        """Run a shell script in a new container of the service, as `compose run --rm --no-deps -T` does."""
        options, image, _ = self._arguments(name, f"{self.container(name)}_once")
        options = [option for option in options if not option.startswith("--restart=")]
        with stdin.open("rb") as file:
            self._podman(
                "run", "--rm", "--interactive", *options, image, "sh", "-c", script, stdin=file.fileno(), timeout=300
            )

    def down(self, *volumes: str) -> None:
        """Remove the containers, and these volumes."""
        for name in reversed(self._in_order()):
            self._podman("rm", "--force", self.container(name), timeout=120)
        for volume in volumes:
            self._podman("volume", "rm", f"{PROJECT}_{volume}")

    def stop(self, name: str) -> tuple[float, int]:
        """Stop the service as compose does; return how long that took and its exit code."""
        grace = self.services[name].get("stop_grace_period", "10s")
        started_at = time.monotonic()
        self._podman("stop", "--time", grace.removesuffix("s"), self.container(name), timeout=seconds(grace) + 30)
        return time.monotonic() - started_at, int(self.state(name, "ExitCode"))

    def _in_order(self) -> list[str]:
        order: list[str] = []
        while len(order) < len(self.services):
            ready = [
                name
                for name, service in self.services.items()
                if name not in order and set(service.get("depends_on") or {}) <= set(order)
            ]
            if not ready:
                raise CannotRehearse("depends_on has a cycle")
            order += ready
        return order

    def _await_condition(self, name: str, condition: str, report: Callable[[str], None]) -> None:
        started_at = time.monotonic()
        if condition == "service_completed_successfully":
            code = self._podman("wait", self.container(name), timeout=300)
            if code != "0":
                raise WrongResult(f"{name} ended with code {code}:\n{self.logs(name)}")
            report(f"{name}: done after {time.monotonic() - started_at:.0f} s")
            return
        check = self.services[name]["healthcheck"]
        limit = seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        report(f"{name}: healthy after {self.wait_until_healthy(name, limit):.0f} s")

    def _arguments(self, name: str, container: str) -> tuple[list[str], str, list[str]]:
        """The options, the image and the command of `podman run`."""
        service = self.services[name]
        image = "localhost/" + service["image"] if "build" in service else self._images[service["image"].split(":")[0]]
        options = [f"--name={container}", f"--network={NETWORK}", f"--network-alias={name}"]
        options += [f"--env={variable}={value}" for variable, value in (service.get("environment") or {}).items()]
        options += [f"--tmpfs={mount}" for mount in service.get("tmpfs", [])]
        options += [f"--cap-drop={name}" for name in service.get("cap_drop", [])]
        options += [f"--security-opt={option.removesuffix(':true')}" for option in service.get("security_opt", [])]
        options += [f"--publish={port}" for port in service.get("ports", [])]
        for secret in service.get("secrets", []):
            options.append(f"--volume={self._checkout / self._secrets[secret]['file']}:/run/secrets/{secret}:ro")
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            options.append(f"--volume={self._checkout / source if '/' in source else f'{PROJECT}_{source}'}:{rest}")
        if service.get("read_only"):
            options += ["--read-only", "--read-only-tmpfs=false"]
        if service.get("init"):
            options.append("--init")
        for option in ("user", "shm_size", "restart"):
            if option in service:
                options.append(f"--{option.replace('_', '-')}={service[option]}")
        if "stop_grace_period" in service:
            options.append(f"--stop-timeout={service['stop_grace_period'].removesuffix('s')}")
        logging = service["logging"]["options"]
        options += ["--log-driver=k8s-file", f"--log-opt=max-size={logging['max-size']}"]
        if "entrypoint" in service:
            raise CannotRehearse(f"{name}: the rehearsal does not know entrypoint")
        return options, image, [str(word) for word in service.get("command", [])]
