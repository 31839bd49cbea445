"""Tests of the `./run bench` command: every benchmark runs and measures real work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.pooler import PGBOUNCER
from workers.settings import CHECKOUT

MEASURES = [
    *(f"B{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22)),
    "B4b",
    "B8 automation",
    "B8 automation ms",
    "B8 ms",
    "B11 p50",
    "B11 p99",
    "B15 import",
    "B15 up",
    "B21 log",
    *(("B23", "B23 sets") if PGBOUNCER else ()),
]


@pytest.mark.long
@pytest.mark.bench
@pytest.mark.timeout(900)
def test_every_benchmark_runs_at_quick_scale(tmp_path: Path) -> None:
    environment = os.environ | {"UNWIND_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "workers", "bench", "--quick", "--json"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr[-3000:]
    assert done.returncode in (0, 1)  # bars are judged on a quiet machine
    results = {entry["measure"]: entry for entry in json.loads(done.stdout)["results"]}
    assert sorted(results) == sorted(MEASURES)
    for entry in results.values():
        assert all(value > 0 for value in (*entry["ours"], *entry["reference"])), entry
        if entry["reference"]:
            ratios = [ours / reference for ours, reference in zip(entry["ours"], entry["reference"], strict=True)]
            turned = [1 / ratio for ratio in ratios]
            assert entry["values"] in (pytest.approx(ratios), pytest.approx(turned)), entry
    assert done.returncode == (0 if all(entry["met"] for entry in results.values()) else 1)
    assert list(tmp_path.iterdir()) == []


def test_unknown_benchmark_is_reported(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "workers", "bench", "B99"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no measure B99. There are B1, B2," in done.stderr
