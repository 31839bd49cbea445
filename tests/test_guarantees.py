"""Tests of docs/guarantees.md: nine guarantees, each shown by tests."""

from __future__ import annotations

import subprocess
import sys

from workers.settings import CHECKOUT


def test_run_with_marker_prints_each_guarantee_with_its_tests() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "guarantee",
        "-p",
        "no:cacheprovider",
        "tests/policies/test_ocr.py",
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=100)
    lines = done.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("P9  Only a party or staff acts on an order"))
    passed = next(line for line in lines[start:] if line.startswith("    passed"))
    assert "tests/policies/test_ocr.py::test_other_members_can_do_nothing  (4 cases)" in passed
    first = next(n for n, line in enumerate(lines) if line.startswith("P1  No accepted command is lost."))
    failed = next(line for line in lines[first:] if line.startswith("    failed"))
    assert failed.endswith("no test of this run shows it")
