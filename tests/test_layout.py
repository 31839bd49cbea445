"""Tests of the layout of the repository: layers, names, links, and the quick checks of `./run check`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
LAYERS = {"workers", "schedules", "tasks", "models", "policies"}
NOT_PRODUCT = {"tests", "docs", "contract", "benchmarks", "deploy", "stress", "tools"}
BANNED_NAMES = {"utils", "helpers", "common", "core", "services", "manager"}


def test_product_has_exactly_the_five_layers() -> None:
    """A package that the import contracts do not name would escape them."""
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py") if not path.parent.name.startswith(".")}
    assert packages - NOT_PRODUCT == LAYERS
    with_python = {path.relative_to(CHECKOUT).parts[0] for path in CHECKOUT.glob("[!.]*/**/*.py")}
    assert with_python <= LAYERS | NOT_PRODUCT


def test_no_module_has_a_meaningless_name() -> None:
    names = {path.stem for layer in LAYERS for path in (CHECKOUT / layer).rglob("*.py")}
    assert not names & BANNED_NAMES


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "ruff", "check", "."],
        ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
    ],
    ids=["format", "lint", "imports"],
)
def test_quick_checks_pass(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
def test_full_check_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers", "check"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_relative_link_in_the_docs_has_a_target() -> None:
    pages = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")]
    broken = {
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    }
    assert broken == set()
