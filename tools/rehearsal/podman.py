"""Podman with a store of its own, so that a rehearsal touches no other container, image, volume or network."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
from pathlib import Path

from workers.settings import CHECKOUT

CONFIGURATION = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{runtime}"
"""
MAX_LIMIT = 4_096
"""Files and processes of a container: podman's own defaults need a right that root in a container lacks."""
STORE = Path("/var/lib/unwind-rehearsal")
STATE = Path("/run/unwind-rehearsal")
PACKAGES = (
    "podman runc debootstrap iptables catatonit python3-venv redis-tools containernetworking-plugins "
    "golang-github-containernetworking-plugin-dnsname"
)

PROGRAMS = ("podman", "debootstrap", "iptables", "tar", "redis-cli", "dpkg-query")


class CannotRehearse(Exception):
    """What this machine lacks, as a sentence for the user."""


class WrongResult(CannotRehearse):
    """What the product did wrong, as a sentence for its developer."""


def require_root() -> None:
    if os.getuid() != 0:
        raise CannotRehearse("A rehearsal needs root: it creates containers, networks and users.")


def program(name: str) -> str:
    """The path of a program that a rehearsal needs."""
    path = shutil.which(name)
    if path is None:
        raise CannotRehearse(f"There is no {name}. On Debian: apt-get install --no-install-recommends {PACKAGES}")
    return path


def install_packages() -> None:
    """Install what a rehearsal needs, as root on Debian, in a minute at most."""
    require_root()
    install = f"apt-get install -y -qq --no-install-recommends {PACKAGES}"
    command = ["timeout", "60", "sh", "-c", f"{install} || {{ apt-get update -qq && {install}; }}"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    program("apt-get")
    if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        raise CannotRehearse(f"apt-get could not install {PACKAGES}")


class Podman:
    """Calls podman. Images stay for the next rehearsal."""

    def __init__(self) -> None:
        require_root()
        self._program = program("podman")
        for name in PROGRAMS:
            program(name)
        for directory in (STORE, STATE):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (STATE / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRehearse("Another rehearsal is running on this machine.") from None
        configuration = STATE / "containers.conf"
        configuration.write_text(
            CONFIGURATION.format(
                files=_hard_limit(resource.RLIMIT_NOFILE),
                processes=_hard_limit(resource.RLIMIT_NPROC),
                runtime="runc" if shutil.which("runc") else "crun",
            )
        )
        self._environment = os.environ | {"CONTAINERS_CONF": str(configuration)}
        self._options = ("--root", str(STORE), "--runroot", str(STATE), "--log-level", "error")
        self._remove_all()  # what a rehearsal left that was killed

    def run(
        self, *words: str, timeout: float = 60, stdin: int | None = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run `podman WORDS` and return what it said, also if it failed."""
        return subprocess.run(
            [self._program, *self._options, *words],
            env=self._environment,
            cwd=CHECKOUT,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *words: str, timeout: float = 60, stdin: int | None = subprocess.DEVNULL) -> str:
        done = self.run(*words, timeout=timeout, stdin=stdin)
        if done.returncode:
            output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise CannotRehearse(f"podman {' '.join(words)[:200]} failed:\n{output}")
        return done.stdout.strip()

    def has_image(self, name: str) -> bool:
        return self.run("image", "exists", name).returncode == 0

    def close(self) -> None:
        self._remove_all()
        self._lock.close()

    def _remove_all(self) -> None:
        """Remove the containers, networks and volumes of this store; images stay."""
        for kind, options in (("container", ("--all",)), ("network", ()), ("volume", ())):
            for name in self.run(kind, "ls", "--quiet", *options).stdout.split():
                if name != "podman":
                    self.run(kind, "rm", "--force", "--time=0", name, timeout=120)


def _hard_limit(kind: int) -> int:
    limit = resource.getrlimit(kind)[1]
    return MAX_LIMIT if limit == resource.RLIM_INFINITY else min(limit, MAX_LIMIT)
