"""Checks that the wheel and the image contain the product only, and no code for tests or docs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PRODUCT = {"workers", "web", "schedules", "tasks", "models", "policies"}
NOT_PRODUCT = {"tools", "stress", "tests", "benchmarks", "docs", "contract", "deploy"}
DEVELOPMENT = re.compile(
    r"""\bimport pytest\b|-m", "pytest|["'/]tests["'/]|\bfrom (?:tools|stress|tests|benchmarks)\b"""
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the checkout by the build backend of this environment, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "unwind", tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, source / name)
    program = f"from setuptools.build_meta import build_wheel; build_wheel({str(target)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = target.glob("*.whl")
    return path


def test_wheel_contains_the_product_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top_level == PRODUCT | {"flowerconfig.py"}
    for path in (
        "workers/cli/show.py",
        "workers/cli/pages/bill.html.j2",
        "workers/mail/templates/email.txt.j2",
        "models/migrations/versions/0001_first_schema.py",
        "models/sql/invariants/alerts.sql",
        "models/sql/return_items.sql",
    ):
        assert path in names


def test_wheel_carries_its_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        assert archive.read(names["licenses/LICENSE"]) == (CHECKOUT / "LICENSE").read_bytes()
        assert "License-Expression: MIT\n" in archive.read(names["METADATA"]).decode()


def test_no_file_of_the_wheel_reads_tests_or_runs_pytest_or_writes_docs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        offending = {
            name: match.group()
            for name in archive.namelist()
            if name.endswith(".py") and (match := DEVELOPMENT.search(archive.read(name).decode()))
        }
        writes_docs = [
            name
            for name in archive.namelist()
            if name.endswith(".py") and re.search(r'/ "docs"', archive.read(name).decode())
        ]
    assert offending == {}
    assert writes_docs == []


def test_image_copies_none_of_the_development_folders() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (CHECKOUT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    sources = {Path(word).parts[0] for line in copied for word in line.split() if not word.startswith("--")}
    assert sources >= PRODUCT
    assert not sources & (NOT_PRODUCT | {"."})
