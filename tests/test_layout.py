"""Does the house stand as it was drawn?  Its floors, its fences, and what the checks say of every line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1]
FLOORS = {"workers", "schedules", "tasks", "models", "policies"}
BESIDE = {"tests", "docs", "contract", "benchmarks", "deploy", "stress", "tools"}
BANNED = {"utils", "helpers", "common", "core", "services", "manager"}


def test_there_are_five_floors_and_no_sixth() -> None:
    """A package that the import contracts do not name would escape them."""
    packages = {path.parent.name for path in HOUSE.glob("*/__init__.py") if not path.parent.name.startswith(".")}
    assert packages - BESIDE == FLOORS
    with_python = {path.relative_to(HOUSE).parts[0] for path in HOUSE.glob("[!.]*/**/*.py")}
    assert with_python <= FLOORS | BESIDE


def test_no_room_is_named_after_nothing() -> None:
    """A name that says nothing collects everything."""
    names = {path.stem for floor in FLOORS for path in (HOUSE / floor).rglob("*.py")}
    assert not names & BANNED


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "ruff", "check", "."],
        ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
    ],
    ids=["format", "lint", "imports"],
)
def test_every_line_is_clean(words: list[str]) -> None:
    """The quick checks of `./run check`."""
    said = subprocess.run([sys.executable, *words], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
def test_check_finds_nothing() -> None:
    """`./run check` as a whole, types included."""
    said = subprocess.run(
        [sys.executable, "-m", "workers", "check"], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_link_of_the_pages_leads_somewhere() -> None:
    """A newcomer who follows a link finds a file."""
    pages = [*HOUSE.glob("*.md"), *(HOUSE / "docs").rglob("*.md")]
    lost = {
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    }
    assert lost == set()
