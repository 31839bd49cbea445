"""Tests of the script `./run` as the first command after a clone.

Downloads nothing: a fake uv creates the environment, and a fake product prints its arguments.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from workers.embedded.processes import wait_until

CHECKOUT = Path(__file__).resolve().parents[1]

PRODUCT = """
import json, os, sys
print(json.dumps({"words": sys.argv[1:], "cwd": os.getcwd(), "path": os.environ["PYTHONPATH"], "first": sys.path[0]}))
"""

# Makes an "environment" whose Python is the one of the tests, and writes down each call.
UV = """#!/bin/sh
echo "$*" >> "{journal}"
case "$1" in
  venv)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cat > "$folder/bin/python" <<'END'
#!/bin/sh
if [ "$2" = pip ]; then echo "no route for pip either" >&2; exit 3; fi
exec {python} "$@"
END
    chmod +x "$folder/bin/python"
    touch "$folder/pyvenv.cfg" ;;
  pip)
    if [ -e "{slow}" ]; then sleep 600; fi
    if [ -e "{broken}" ]; then echo "no route to the registry" >&2; exit 2; fi ;;
esac
"""


class Clone:
    """A fresh checkout with a product that prints its arguments, and a fake uv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"
        self.journal, self.slow, self.broken = folder / "journal", folder / "slow", folder / "broken"
        (self.folder / "workers").mkdir(parents=True)
        (self.folder / "workers" / "__init__.py").touch()
        (self.folder / "workers" / "__main__.py").write_text(PRODUCT)
        for name in ("run", "requirements.lock", "requirements-dev.lock"):
            shutil.copy(CHECKOUT / name, self.folder / name)
        tools = folder / "bin"
        tools.mkdir()
        uv = tools / "uv"
        uv.write_text(UV.format(journal=self.journal, python=sys.executable, slow=self.slow, broken=self.broken))
        uv.chmod(0o755)
        self.environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder)}

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.folder / "run"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=cwd or self.folder,
            start_new_session=True,
        )

    def run(self, *words: str, cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.start(*words, cwd=cwd)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, kind: str) -> list[str]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line for line in lines if line.startswith(kind)]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_first_command_creates_the_environment(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    status, out, err = clone.run("show", "order", "1003", "--json", cwd=tmp_path)
    assert status == 0, err
    result = json.loads(out)
    assert result["words"] == ["show", "order", "1003", "--json"]
    assert result["cwd"] == str(tmp_path)
    assert result["path"] == str(clone.folder)
    assert result["first"] != str(tmp_path), "a folder `tasks` where the caller stands must not shadow ours"
    assert "Setting up" in err
    assert "Ready after" in err
    install = clone.calls("pip")[0]
    assert "--require-hashes" in install
    assert install.endswith(f"{clone.folder}/requirements.lock")


def test_second_command_installs_nothing(clone: Clone) -> None:
    clone.run("up")
    before = clone.journal.read_text()
    status, _, err = clone.run("down")
    assert (status, err, clone.journal.read_text()) == (0, "", before)


def test_changed_lock_is_installed(clone: Clone) -> None:
    clone.run("up")
    with (clone.folder / "requirements.lock").open("a") as lock:
        lock.write("# newer\n")
    clone.run("up")
    assert len(clone.calls("pip")) == 2
    assert len(clone.calls("venv")) == 1


@pytest.mark.parametrize("command", ["test", "check", "bench", "torture", "rehearse"])
def test_development_commands_install_the_development_list(clone: Clone, command: str) -> None:
    clone.run(command, "--all")
    assert clone.calls("pip")[0].endswith("requirements-dev.lock")
    clone.run("up")
    assert len(clone.calls("pip")) == 1


def test_interrupted_setup_is_repeated(clone: Clone) -> None:
    clone.slow.touch()
    process = clone.start("up")
    assert wait_until(lambda: bool(clone.calls("pip")), 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (clone.folder / ".venv" / "half-installed").touch()
    clone.slow.unlink()
    status, _, err = clone.run("up")
    assert status == 0, err
    assert not (clone.folder / ".venv" / "half-installed").exists()


def test_concurrent_first_commands_set_up_once(clone: Clone) -> None:
    processes = [clone.start("up"), clone.start("show")]
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    assert len(clone.calls("pip")) == 1


def test_failed_installation_is_explained(clone: Clone) -> None:
    clone.broken.touch()
    status, out, err = clone.run("up")
    assert (status, out) == (1, "")
    assert "no route to the registry" in err
    assert "Trying pip instead" in err
    assert "no route for pip either" in err
    assert "Traceback" not in err
    clone.broken.unlink()
    assert clone.run("up")[0] == 0


def test_home_may_be_missing(clone: Clone) -> None:
    """As under `su`, in cron and in containers; no cache is used then."""
    clone.environment["HOME"] = "/nonexistent"
    assert clone.run("up")[0] == 0
    assert "--no-cache" in clone.calls("pip")[0]
    del clone.environment["HOME"]
    shutil.rmtree(clone.folder / ".venv")
    assert clone.run("up")[0] == 0


def test_environment_and_data_may_lie_elsewhere(clone: Clone, tmp_path: Path) -> None:
    """By UNWIND_VENV and UNWIND_DATA, for a read-only checkout."""
    clone.environment["UNWIND_VENV"] = str(tmp_path / "deep" / "venv")
    assert clone.run("up")[0] == 0
    assert not (clone.folder / ".venv").exists()
    assert sorted(path.name for path in clone.folder.iterdir()) == [
        "requirements-dev.lock",
        "requirements.lock",
        "run",
        "workers",
    ]


def test_unwritable_folder_is_reported_with_its_fix(clone: Clone, tmp_path: Path) -> None:
    """A file in the way stands for a read-only checkout, for root too."""
    (tmp_path / "file").touch()
    clone.environment["UNWIND_VENV"] = str(tmp_path / "file" / "venv")
    status, _, err = clone.run("up")
    assert status == 1
    assert "UNWIND_VENV=" in err
    assert "Traceback" not in err


def test_folder_that_is_no_environment_is_never_removed(clone: Clone) -> None:
    """UNWIND_VENV=$HOME by mistake must not delete a home directory."""
    (clone.folder / ".venv").mkdir()
    (clone.folder / ".venv" / "diary").write_text("dear diary")
    status, _, err = clone.run("up")
    assert status == 1
    assert "is no Python environment" in err
    assert (clone.folder / ".venv" / "diary").read_text() == "dear diary"


# -- what cannot be had on every machine: old Pythons, missing modules -------------------------------------------------


@pytest.fixture
def script() -> Any:
    loader = importlib.machinery.SourceFileLoader("run_script", str(CHECKOUT / "run"))
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    module = types.ModuleType("run_script")
    module.__file__ = str(CHECKOUT / "run")
    loader.exec_module(module)
    return module


def without_modules(*missing: str) -> Any:
    """A Python that can't import these modules."""

    def answers(_python: str, program: str) -> str | None:
        if "version_info" in program:
            return "3 11\n"
        return None if any(name in program for name in missing) else ""

    return answers


def test_old_python_can_parse_the_script() -> None:
    """An old Python must be able to report that it is too old."""
    tree = ast.parse((CHECKOUT / "run").read_text(), feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= sys.stdlib_module_names
    assert os.access(CHECKOUT / "run", os.X_OK)


def test_old_python_finds_a_newer_one_on_the_path(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims of pyenv that don't start are skipped."""
    monkeypatch.setattr(script.sys, "version_info", (3, 9, 2))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.CannotSetUp, match=r"needs Python 3\.11 or newer; this is 3\.9"):
        script.suitable_python()
    for name, body in (("python3.13", "exit 127"), ("python3.12", "echo 3 12")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    assert script.suitable_python() == str(tmp_path / "python3.12")


def test_without_venv_a_user_is_told_the_command_to_type(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minimal Debian has python3 and git, but neither pip nor venv."""
    monkeypatch.setattr(script, "output_of", without_modules("ensurepip", "pip"))
    monkeypatch.setattr(script.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apt-get" else None)
    monkeypatch.setattr(script.os, "getuid", lambda: 1000)
    with pytest.raises(script.CannotSetUp, match="sudo apt-get install -y python3-venv"):
        script.create_venv("/nowhere", None)


def test_without_venv_root_gets_it_installed(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outdated package list is refreshed once."""
    called: list[list[str]] = []
    results = iter([100, 0, 0])

    def call(command: list[str], **_: Any) -> int:
        called.append(command[1:])
        return next(results)

    monkeypatch.setattr(script, "output_of", without_modules("ensurepip", "pip"))
    monkeypatch.setattr(script.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apt-get" else None)
    monkeypatch.setattr(script.os, "getuid", lambda: 0)
    monkeypatch.setattr(script.subprocess, "call", call)
    monkeypatch.setattr(script, "run_quietly", lambda command, _purpose: called.append(command[1:]))
    script.create_venv("/nowhere", None)
    install = ["install", "-y", "-qq", "python3-venv"]
    assert called == [install, ["update", "-qq"], install, ["-m", "venv", "/nowhere"]]
    assert "lacks the module venv: running apt-get install -y python3-venv" in capsys.readouterr().err


def test_without_venv_and_apt_the_alternatives_are_named(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "output_of", without_modules("ensurepip", "pip"))
    monkeypatch.setattr(script.shutil, "which", lambda _name: None)
    with pytest.raises(script.CannotSetUp, match=r"Install your system's package .* or uv"):
        script.create_venv("/nowhere", None)


def test_pip_alone_is_enough(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images have pip and venv but no ensurepip."""
    called: list[list[str]] = []
    monkeypatch.setattr(script, "output_of", without_modules("ensurepip"))
    monkeypatch.setattr(script, "run_quietly", lambda command, _purpose: called.append(command[1:]))
    script.create_venv("/nowhere", None)
    script.install("/nowhere", None, "product")
    assert called[0] == ["-m", "venv", "--without-pip", "/nowhere"]
    assert "--require-hashes" in called[1]


# -- the lists of packages ---------------------------------------------------------------------------------------------


def versions(name: str) -> dict[str, str]:
    text = (CHECKOUT / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==([^ \\;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_packages_are_locked_by_hash_without_addresses(name: str) -> None:
    """The installer decides where packages come from."""
    text = (CHECKOUT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra|find|trusted)", text, re.MULTILINE)
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)


def test_development_list_contains_the_product_list() -> None:
    """One environment serves both."""
    product, development = versions("requirements.lock"), versions("requirements-dev.lock")
    assert product.items() <= development.items()
    assert product["kombu"] == "5.7.0"


def test_ci_runs_the_command_of_the_readme() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"./run test || status=$?", "./run test --long || status=$?"} <= set(script.read_text().splitlines())
