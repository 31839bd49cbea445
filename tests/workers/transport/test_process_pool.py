"""Tests of the pool of processes in which tasks run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.app import app


@pytest.mark.guarantee("P1")
@pytest.mark.parametrize("part", [pytest.param(b"\0\0\1\0", marks=pytest.mark.long), b"\0\0\1\0half a job"])
def test_pool_runs_jobs_after_a_process_was_killed_with_a_part_of_a_job_in_its_pipe(part: bytes) -> None:
    command = [sys.executable, "-m", "tests.workers.looped_pool", app.conf.worker_pool, part.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "the job was done\n", done.stderr
